//! A person's authenticator app.

use anyhow::Context as _;
use horcrux_transport::clock;
use totp_rs::{Algorithm, Builder, Secret, Totp};

use crate::wait_until;

/// Gives each code once, as controllers take each once.
#[derive(Debug)]
pub struct Authenticator {
    totp: Totp,
    /// Of the last code.
    step: i64,
}

const STEP_MS: i64 = 30_000;

impl Authenticator {
    /// `secret` as people type it in.
    pub fn new(secret: &str) -> anyhow::Result<Self> {
        let secret = Secret::try_from_base32(secret).map_err(|error| anyhow::anyhow!("{secret}: {error}"))?;
        let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_secret(secret);
        let totp = builder.with_account_name("tests").build().context("a secret for codes")?;
        Ok(Self { totp, step: 0 })
    }

    /// A code that is good now and was not given before. The next one is good already, as clocks differ; beyond that it
    /// waits.
    pub fn code(&mut self) -> anyhow::Result<String> {
        let step = wait_until("another code", || {
            let now = clock::unix_ms() / STEP_MS;
            let step = now.max(self.step + 1);
            anyhow::ensure!(step <= now + 1, "step {step} has not come");
            Ok(step)
        })?;
        self.step = step;
        let seconds = u64::try_from(step * STEP_MS / 1000)?;
        Ok(self.totp.generate(seconds).to_string())
    }
}

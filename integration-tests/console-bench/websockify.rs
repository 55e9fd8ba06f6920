//! Debian's websockify, with TLS, in front of the same source of bytes on a UNIX socket.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use horcrux_integration_tests::{succeeded, wait_until};
use horcrux_proto::console::MAX_MESSAGE;
use horcrux_transport::client::{Connect, Trust};
use horcrux_transport::websocket::{Ask, Receiver, Sender};

#[derive(Debug)]
pub(crate) struct Websockify {
    child: Child,
    source: UnixListener,
    connect: Connect,
}

const DEADLINE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(120);

impl Websockify {
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let (key, certificate, der) = (dir.join("key"), dir.join("certificate"), dir.join("der"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-days", "2"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .context("run openssl")?;
        succeeded(&made)?;
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-outform", "DER", "-in"]).arg(&certificate).arg("-out").arg(&der);
        succeeded(&convert.output()?)?;
        let at = dir.join("source");
        let source = UnixListener::bind(&at)?;
        // Taken and let go: websockify can't be asked which port it took.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("websockify")
            .arg("--cert")
            .arg(&certificate)
            .arg("--key")
            .arg(&key)
            .arg("--ssl-only")
            .arg("--unix-target")
            .arg(&at)
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start websockify: integration-tests/install has it")?;
        let target = format!("https://127.0.0.1:{port}").parse()?;
        let connect = Connect::new(target, Trust::Authorities(vec![std::fs::read(&der)?]), DEADLINE);
        let started = Self { child, source, connect };
        wait_until("websockify", || Ok(std::net::TcpStream::connect(("127.0.0.1", port))?))?;
        Ok(started)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A viewer, and what it is connected to.
    pub(crate) async fn open(&self) -> anyhow::Result<(Sender, Receiver, UnixStream)> {
        let ask = Ask { path: "/", subprotocol: "binary", max_message: 2 * MAX_MESSAGE, silence: SILENCE };
        let (sender, receiver) = self.connect.websocket(ask, &"none".to_owned().into()).await?;
        let (source, _) = self.source.accept()?;
        Ok((sender, receiver, source))
    }
}

impl Drop for Websockify {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

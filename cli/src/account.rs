//! One's own account: sessions, password and second factor.

use std::path::Path;

use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{
    ChangePasswordRequest, ConfirmTotpRequest, EndSessionRequest, ListSessionsRequest, RemoveTotpRequest,
    StartTotpRequest,
};

use crate::App;
use crate::args::sign_in::{OwnerArgs, PasswordArgs, SessionCommand, TotpCommand};
use crate::change::Deed;
use crate::door::device_file;
use crate::failure::Failure;
use crate::login::caller;
use crate::prompt;
use crate::session::Session;
use crate::sign_in::{code, new_totp, tries};
use crate::tokens::Credential;
use crate::view::secret::RecoveryCodesView;
use crate::view::session::SessionListView;
use crate::view::shown;

const OLD: &str = "--old-password-file F";
const NEW: &str = "--new-password-file F";
const CODE: &str = "code of the second factor, or a recovery code";

impl App {
    pub async fn sessions(&self, command: SessionCommand) -> Result<(), Failure> {
        match command {
            SessionCommand::List(owner) => self.print(&sessions(&self.session().await?, &owner).await?),
            SessionCommand::End { id, removal } => {
                let session = self.session().await?;
                let deed = Deed::new("end", "ended", format!("the session {}", shown(&id)));
                let question = format!("End the session {}? Its user must sign in again.", shown(&id));
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (session_id, validate_only) = (id.clone(), run.validate_only());
                    session.send(
                        EndSessionRequest { session_id, request_id, validate_only },
                        |wire, r| async move { AuthServiceClient::new(wire).end_session(r).await },
                    )
                })
                .await
            }
        }
    }

    pub async fn change_password(&self, args: &PasswordArgs) -> Result<(), Failure> {
        let (old, new) = (args.old_password_file.as_deref(), args.new_password_file.as_deref());
        prompt::one_from_stdin(&[old, new])?;
        let session = self.session().await?;
        let old = prompt::secret("old password", old, OLD)?;
        let new = prompt::new_password("new password", new, NEW)?;
        let request = ChangePasswordRequest {
            old_password: old.expose().to_owned(),
            new_password: new.expose().to_owned(),
        };
        let change = |wire, r| async move { AuthServiceClient::new(wire).change_password(r).await };
        let answer = session.send(request, change).await?;
        if let Some(device) = answer.device {
            self.home.write(&device_file(session.context()?), &device).map_err(anyhow::Error::from)?;
        }
        self.say("changed your password; your other sessions are over");
        Ok(())
    }

    pub async fn totp(&self, command: TotpCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            TotpCommand::Setup { password_file, second_factor_file } => {
                let (password, code) = (password_file.as_deref(), second_factor_file.as_deref());
                prompt::one_from_stdin(&[password, code])?;
                self.set_up_totp(&session, password, code).await
            }
            TotpCommand::Remove { code: factor } => {
                let code = code(CODE, factor.second_factor_file.as_deref())?.expose().to_owned();
                let remove = |wire, r| async move { AuthServiceClient::new(wire).remove_totp(r).await };
                session.send(RemoveTotpRequest { code }, remove).await?;
                self.say("removed your second factor");
                Ok(())
            }
        }
    }

    /// Prints the recovery codes once it is set up.
    pub async fn set_up_totp(
        &self,
        session: &Session,
        password: Option<&Path>,
        code_file: Option<&Path>,
    ) -> Result<(), Failure> {
        // Other realms' passwords are not the controller's to ask for.
        let password = if caller(session).await?.user.ends_with("@local") {
            prompt::secret("password", password, "--password-file F")?.expose().to_owned()
        } else {
            String::new()
        };
        let start = |wire, r| async move { AuthServiceClient::new(wire).start_totp(r).await };
        let started = session.send(StartTotpRequest { password }, start).await?;
        self.say(&new_totp(&started.totp.unwrap_or_default()));
        let mut left = tries(code_file);
        let confirmed = loop {
            left -= 1;
            let code = code("first code", code_file)?.expose().to_owned();
            let confirm = |wire, r| async move { AuthServiceClient::new(wire).confirm_totp(r).await };
            match session.send(ConfirmTotpRequest { code }, confirm).await {
                Ok(confirmed) => break confirmed,
                Err(failure @ (Failure::Refused(_) | Failure::Denied(_))) if left > 0 => {
                    self.say(&failure.text());
                }
                Err(failure) => return Err(failure),
            }
        };
        let codes = RecoveryCodesView::from(confirmed.recovery_codes);
        self.say("the second factor is set up");
        self.say(codes.talk());
        self.print(&codes)
    }
}

pub async fn sessions(session: &Session, owner: &OwnerArgs) -> Result<SessionListView, Failure> {
    let list = |wire, r| async move { AuthServiceClient::new(wire).list_sessions(r).await };
    let answer = session.send(ListSessionsRequest { user: owner.wire() }, list).await;
    let by_token = matches!(session.credential(), Ok(Credential::ApiToken(_)));
    let answer = match answer {
        // It has none of its own to show.
        Err(Failure::Denied(why)) if by_token => {
            let why = format!("an API token can't do this: sign in as a person ({why})");
            return Err(Failure::Denied(why));
        }
        answer => answer?,
    };
    Ok(SessionListView::from(answer.sessions.as_slice()))
}

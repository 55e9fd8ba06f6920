//! Signing in at an OpenID provider from a terminal: the device flow. A person enters a code in any browser; meanwhile
//! the controller is asked again and again whether they have.

use std::path::Path;
use std::time::Duration;

use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{FinishOidcRequest, ListRealmsRequest, Realm, RealmKind, StartOidcRequest};
use horcrux_transport::clock;

use crate::App;
use crate::door::Door;
use crate::failure::Failure;
use crate::session::unsigned;
use crate::sign_in::{Answer, SignedIn, admitted, refusable};
use crate::view::shown;

/// The pace where the controller names none, as RFC 8628 has it.
const USUAL_POLL: Duration = Duration::from_secs(5);
/// The controller says when a flow ends. Where our clock disagrees with its own, these hold: a person gets a minute, and
/// nothing is polled for longer than half an hour.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 60);

pub async fn with_provider(
    app: &App,
    door: &Door,
    realm: Option<&str>,
    second_factor: Option<&Path>,
) -> Result<SignedIn, Failure> {
    let realm = match realm {
        Some(realm) => realm.to_owned(),
        None => only_realm(app, door).await?,
    };
    let mut client = AuthServiceClient::new(door.channel.clone());
    let request = StartOidcRequest { realm, device: true };
    let started = unsigned(&door.url, app.deadline, client.start_oidc(request)).await?;
    app.say(&format!(
        "open {} in a browser and enter the code\n\n  {}\n\nwaiting; Ctrl-C gives up",
        shown(&started.url),
        shown(started.user_code.as_deref().unwrap_or_default())
    ));
    let pace = match started.poll_seconds {
        0 => USUAL_POLL,
        seconds => Duration::from_secs(seconds.into()),
    };
    let give_up = clock::monotonic() + patience(started.expires_unix_ms, clock::unix_ms());
    while clock::monotonic() < give_up {
        tokio::time::sleep(pace).await;
        let request = FinishOidcRequest { flow_id: started.flow_id.clone(), ..FinishOidcRequest::default() };
        match refusable(app, door, client.finish_oidc(request)).await {
            Ok(answer) if answer.pending => {}
            Ok(answer) => {
                let (tokens, session, challenge) = (answer.tokens, answer.session, answer.challenge);
                return admitted(app, door, Answer { tokens, session, challenge }, second_factor).await;
            }
            // The person is in a browser: a connection that comes back is still in time.
            Err(failure) if failure.is_passing() => app.say(&format!("{failure}; trying again")),
            Err(failure) => return Err(failure),
        }
    }
    let why = "nobody entered the code in time".to_owned();
    Err(Failure::SignInRefused { url: door.url.clone(), why })
}

/// The one OpenID realm that the controller has.
async fn only_realm(app: &App, door: &Door) -> Result<String, Failure> {
    let mut client = AuthServiceClient::new(door.channel.clone());
    let answer = unsigned(&door.url, app.deadline, client.list_realms(ListRealmsRequest {})).await?;
    let realms: Vec<&Realm> = answer.realms.iter().filter(|r| r.kind() == RealmKind::Oidc).collect();
    match realms.as_slice() {
        [] => Err(Failure::Usage(format!("{} has no OpenID realm: leave out --oidc", door.url))),
        [realm] => Ok(realm.name.clone()),
        several => {
            let names: Vec<String> =
                several.iter().map(|r| format!("{} ({})", shown(&r.name), shown(&r.title))).collect();
            Err(Failure::Usage(format!("choose an OpenID realm with --realm: {}", names.join(", "))))
        }
    }
}

/// How long a flow is waited for.
fn patience(expires_unix_ms: i64, now_ms: i64) -> Duration {
    let left = u64::try_from(expires_unix_ms.saturating_sub(now_ms)).unwrap_or_default();
    Duration::from_millis(left).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_neither_ends_a_flow_nor_keeps_it() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(patience(600_000, 0), minutes(10));
        assert_eq!(patience(0, 600_000), minutes(1));
        assert_eq!(patience(i64::MAX, i64::MIN), minutes(30));
    }
}

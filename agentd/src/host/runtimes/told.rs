//! An answer of privd, by container. Pure.

use std::collections::BTreeMap;

use horcrux_privd::v1::{Container, ContainersAnswer, Health, Outcome, Runtime, RuntimeAnswer, State};
use horcrux_proto::v1::{ContainerHealth, ContainerRuntime, ContainerState};

use super::known::{Known, Unknown};

/// What each runtime said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told(Vec<Said>);

#[derive(Debug, PartialEq, Eq)]
struct Said {
    runtime: Runtime,
    /// Whose it is, where it is a user's own.
    user_id: Option<u32>,
    outcome: Outcome,
    reason: String,
    containers: BTreeMap<String, Known>,
    left_off: u32,
}

impl From<ContainersAnswer> for Told {
    fn from(answer: ContainersAnswer) -> Self {
        Self(answer.runtimes.into_iter().map(Said::from).collect())
    }
}

impl From<RuntimeAnswer> for Said {
    fn from(answer: RuntimeAnswer) -> Self {
        Self {
            runtime: answer.runtime(),
            user_id: answer.user_id,
            outcome: answer.outcome(),
            containers: answer.containers.into_iter().map(known).collect(),
            reason: answer.reason,
            left_off: answer.left_off,
        }
    }
}

impl Told {
    /// What is known of a container by its cgroup.
    pub(super) fn of(
        &self,
        id: &str,
        runtime: ContainerRuntime,
        cgroup_path: &str,
    ) -> Result<Known, Unknown> {
        let wanted = runtimes(runtime);
        let said = || self.0.iter().filter(|said| wanted.contains(&said.runtime) && said.is_of(cgroup_path));
        if let Some(known) = said().find_map(|said| said.containers.get(id)) {
            return Ok(known.clone());
        }
        let silent = |said: &Said| Unknown::Silent(format!("{}: {}", said.name(), said.reason));
        // One that fails may know it; one that isn't there says less than one that is.
        let first = |outcome: Outcome| said().find(move |said| said.outcome == outcome);
        Err(match (first(Outcome::Failing), first(Outcome::Answered), first(Outcome::Absent)) {
            (Some(failing), _, _) => silent(failing),
            (None, Some(answered), _) if answered.left_off > 0 => {
                Unknown::Silent(format!("{} has more containers than can be told", answered.name()))
            }
            (None, Some(answered), _) => Unknown::Unheard(format!("{} doesn't know it", answered.name())),
            (None, None, Some(absent)) => silent(absent),
            (None, None, None) => Unknown::Silent("horcrux-privd doesn't know its runtime".to_owned()),
        })
    }
}

impl Told {
    /// Which runtimes are there and don't answer as they should, and why.
    pub(super) fn failing(&self) -> impl Iterator<Item = String> {
        let failing = self.0.iter().filter(|said| said.outcome == Outcome::Failing);
        failing.map(|said| format!("{}: {}", said.name(), said.reason))
    }
}

impl Said {
    /// Whether it may speak of what is there: a user's own runtime speaks of what is in that user's slice, where nobody
    /// else's containers are.
    fn is_of(&self, cgroup_path: &str) -> bool {
        let in_slice = |user_id: u32| {
            let slice = format!("user-{user_id}.slice");
            cgroup_path.split('/').any(|segment| segment == slice)
        };
        self.user_id.is_none_or(in_slice)
    }

    fn name(&self) -> String {
        let name = match self.runtime {
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Lxd => "lxd",
            Runtime::Incus => "incus",
            Runtime::Lxc => "lxc",
            Runtime::Nspawn => "systemd-machined",
            Runtime::Containerd => "containerd",
            Runtime::Crio => "cri-o",
            Runtime::Unspecified => "a runtime",
        };
        self.user_id.map_or_else(|| name.to_owned(), |user_id| format!("{name} of user {user_id}"))
    }
}

/// Who may have made a container that its path says is of `runtime`.
fn runtimes(runtime: ContainerRuntime) -> &'static [Runtime] {
    match runtime {
        ContainerRuntime::Docker => &[Runtime::Docker],
        ContainerRuntime::Podman => &[Runtime::Podman],
        // All three make their groups by LXC's library.
        ContainerRuntime::Lxc => &[Runtime::Lxd, Runtime::Incus, Runtime::Lxc],
        ContainerRuntime::Nspawn => &[Runtime::Nspawn],
        ContainerRuntime::Containerd => &[Runtime::Containerd],
        ContainerRuntime::Crio => &[Runtime::Crio],
        ContainerRuntime::Kubernetes => &[Runtime::Containerd, Runtime::Crio, Runtime::Docker],
        ContainerRuntime::Unspecified => &[],
    }
}

fn known(container: Container) -> (String, Known) {
    let (state, health) = (state(container.state()), health(container.health()));
    let text = |text: String| (!text.is_empty()).then_some(text);
    let known = Known {
        name: text(container.name),
        image: text(container.image),
        labels: container.labels,
        state,
        health,
    };
    (container.id, known)
}

fn state(state: State) -> ContainerState {
    match state {
        State::Unspecified => ContainerState::Unspecified,
        State::Created => ContainerState::Created,
        State::Running => ContainerState::Running,
        State::Paused => ContainerState::Paused,
        State::Restarting => ContainerState::Restarting,
        State::Exited => ContainerState::Exited,
        State::Dead => ContainerState::Dead,
    }
}

fn health(health: Health) -> ContainerHealth {
    match health {
        Health::Unspecified => ContainerHealth::Unspecified,
        Health::Starting => ContainerHealth::Starting,
        Health::Healthy => ContainerHealth::Healthy,
        Health::Unhealthy => ContainerHealth::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-a.scope";

    fn answer(runtime: Runtime, outcome: Outcome, names: &[(&str, &str)]) -> RuntimeAnswer {
        let container = |&(id, name): &(&str, &str)| Container {
            id: id.into(),
            name: name.into(),
            state: State::Paused.into(),
            ..Container::default()
        };
        let reason = if outcome == Outcome::Answered { "" } else { "the reason" };
        RuntimeAnswer {
            runtime: runtime.into(),
            outcome: outcome.into(),
            reason: reason.into(),
            containers: names.iter().map(container).collect(),
            ..RuntimeAnswer::default()
        }
    }

    fn told(runtimes: Vec<RuntimeAnswer>) -> Told {
        Told::from(ContainersAnswer { runtimes })
    }

    #[test]
    fn a_container_is_asked_of_its_own_runtime() {
        let docker = answer(Runtime::Docker, Outcome::Answered, &[("a", "web"), ("b", "")]);
        let told = told(vec![docker, answer(Runtime::Podman, Outcome::Answered, &[("a", "other")])]);
        let web = told.of("a", ContainerRuntime::Docker, "/docker/a").unwrap();
        assert_eq!((web.name.as_deref(), web.state), (Some("web"), ContainerState::Paused));
        assert_eq!(told.of("b", ContainerRuntime::Docker, "/docker/b").unwrap().name, None);
        let unheard = Unknown::Unheard("docker doesn't know it".into());
        assert_eq!(told.of("c", ContainerRuntime::Docker, "/docker/c"), Err(unheard));
        let pod = told.of("a", ContainerRuntime::Kubernetes, "/kubepods/pod1/a").unwrap();
        assert_eq!(pod.name.as_deref(), Some("web"));
    }

    #[test]
    fn why_it_is_not_known_is_told_of_the_one_who_may_know_it() {
        let why = |outcomes: [Outcome; 3]| {
            let runtimes = [Runtime::Lxd, Runtime::Incus, Runtime::Lxc];
            let told = told(runtimes.into_iter().zip(outcomes).map(|(r, o)| answer(r, o, &[])).collect());
            told.of("web", ContainerRuntime::Lxc, "/lxc.payload.web").unwrap_err()
        };
        use Outcome as O;
        let silent = |why: &str| Unknown::Silent(why.into());
        assert_eq!(why([O::Absent, O::Absent, O::Absent]), silent("lxd: the reason"));
        assert_eq!(why([O::Absent, O::Failing, O::Answered]), silent("incus: the reason"));
        assert_eq!(why([O::Absent, O::Absent, O::Answered]), Unknown::Unheard("lxc doesn't know it".into()));
        let more = RuntimeAnswer { left_off: 1, ..answer(Runtime::Docker, O::Answered, &[]) };
        let left_off = told(vec![more]).of("a", ContainerRuntime::Docker, "/docker/a");
        assert_eq!(left_off, Err(silent("docker has more containers than can be told")));
    }

    #[test]
    fn a_user_s_runtime_speaks_of_that_user_s_containers_alone() {
        let of = |user_id, names| RuntimeAnswer {
            user_id: Some(user_id),
            ..answer(Runtime::Podman, Outcome::Answered, names)
        };
        let host = answer(Runtime::Podman, Outcome::Absent, &[]);
        let told = told(vec![host, of(100, &[("a", "forged")]), of(1000, &[("a", "own"), ("r", "forged")])]);
        assert_eq!(told.of("a", ContainerRuntime::Podman, PATH).unwrap().name.as_deref(), Some("own"));
        let roots = told.of("r", ContainerRuntime::Podman, "/machine.slice/libpod-r.scope").unwrap_err();
        assert_eq!(roots, Unknown::Silent("podman: the reason".into()));
        let theirs = told.of("z", ContainerRuntime::Podman, PATH).unwrap_err();
        assert_eq!(theirs, Unknown::Unheard("podman of user 1000 doesn't know it".into()));
    }
}

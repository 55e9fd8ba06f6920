//! What is known of one container, and kept while it lives.

use std::collections::BTreeMap;

use horcrux_proto::v1::{ContainerFacts, ContainerHealth, ContainerState};

/// As a runtime tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: Option<String>,
    pub(super) image: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) state: ContainerState,
    pub(super) health: ContainerHealth,
}

/// Why nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nobody answered who could know it.
    Silent(String),
    /// Who should know it doesn't.
    Unheard(String),
}

/// What was told of a container so far.
///
/// An id is never given twice, so what a container was called holds while nobody answers; what state it is in doesn't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    known: Known,
    /// Why it isn't told now, if so.
    why: Option<String>,
    was_sought: bool,
}

impl Recalled {
    /// Whether nobody has been asked since it was found.
    pub(crate) fn is_new(&self) -> bool {
        !self.was_sought
    }

    pub(crate) fn sought(&mut self) {
        self.was_sought = true;
    }

    /// Says whether anything changed.
    pub(super) fn update(&mut self, found: Result<Known, Unknown>) -> bool {
        let before = self.clone();
        (self.known, self.why) = match found {
            Ok(known) => (known, None),
            Err(Unknown::Unheard(why)) => (Known::default(), Some(why)),
            Err(Unknown::Silent(why)) => {
                let (state, health) = (ContainerState::Unspecified, ContainerHealth::Unspecified);
                (Known { state, health, ..std::mem::take(&mut self.known) }, Some(why))
            }
        };
        *self != before
    }

    /// A container's facts with what is known beside its cgroup.
    pub(crate) fn add_to(&self, facts: ContainerFacts) -> ContainerFacts {
        let display_name = self.known.name.clone().or(facts.display_name);
        let name_unknown_reason = if display_name.is_some() {
            String::new()
        } else {
            self.why.clone().unwrap_or_else(|| "its runtime knows it and has no name for it".to_owned())
        };
        let state_unknown_reason = if self.known.state == ContainerState::Unspecified {
            self.why.clone().unwrap_or_else(|| "its runtime doesn't tell it".to_owned())
        } else {
            String::new()
        };
        ContainerFacts {
            display_name,
            name_unknown_reason,
            state_unknown_reason,
            image: self.known.image.clone(),
            labels: self.known.labels.clone(),
            state: self.known.state.into(),
            health: self.known.health.into(),
            ..facts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Known {
        Known { name: Some("web".into()), state: ContainerState::Running, ..Known::default() }
    }

    fn facts(recalled: &Recalled) -> (Option<String>, String, ContainerState) {
        let facts = recalled.add_to(ContainerFacts::default());
        (facts.display_name.clone(), facts.name_unknown_reason.clone(), facts.state())
    }

    #[test]
    fn a_name_outlives_a_silence_and_a_state_does_not() {
        let mut recalled = Recalled::default();
        assert!(recalled.update(Err(Unknown::Silent("away".into()))));
        assert_eq!(facts(&recalled), (None, "away".into(), ContainerState::Unspecified));
        assert!(recalled.update(Ok(web())));
        assert!(!recalled.update(Ok(web())), "nothing is new");
        assert_eq!(facts(&recalled), (Some("web".into()), String::new(), ContainerState::Running));
        assert!(recalled.update(Err(Unknown::Silent("away".into()))));
        assert_eq!(facts(&recalled), (Some("web".into()), String::new(), ContainerState::Unspecified));
        assert_eq!(recalled.add_to(ContainerFacts::default()).state_unknown_reason, "away");
        assert!(recalled.update(Err(Unknown::Unheard("never heard of it".into()))));
        assert_eq!(facts(&recalled), (None, "never heard of it".into(), ContainerState::Unspecified));
    }

    #[test]
    fn a_name_that_the_cgroup_has_needs_nobody() {
        let recalled = Recalled::default();
        let facts = ContainerFacts { display_name: Some("box".into()), ..ContainerFacts::default() };
        let facts = recalled.add_to(facts);
        assert_eq!((facts.display_name.as_deref(), facts.name_unknown_reason.as_str()), (Some("box"), ""));
    }
}

//! What the controller tells a viewer, in words.

use horcrux_proto::console::{Notice, Viewer};
use horcrux_proto::v1::ConsoleMode;

use crate::view::console::about;
use crate::view::{bare, shown};

/// What was told already: only changes are told again.
#[derive(Debug)]
pub(super) struct Told {
    mode: ConsoleMode,
    others: String,
}

impl Told {
    pub(super) fn new(mode: ConsoleMode) -> Self {
        Self { mode, others: String::new() }
    }

    pub(super) fn words(&mut self, notice: &Notice) -> Option<String> {
        match notice {
            Notice::Opened { recorded: true, .. } => Some("this console is recorded".to_owned()),
            Notice::Opened { recorded: false, .. } | Notice::ChannelOpened => None,
            Notice::Waiting { why } => Some(format!("waiting: {}", shown(why))),
            Notice::Restarted { node } => Some(format!("on {} now", shown(bare(node)))),
            Notice::Viewers { viewers } => self.viewers(viewers),
            Notice::Control { .. } if self.mode == ConsoleMode::View => None,
            Notice::Control { in_control: true, .. } => Some("your keys reach the VM".to_owned()),
            Notice::Control { in_control: false, by } => {
                Some(format!("your keys don't reach the VM any more: those of {} do", shown(by)))
            }
        }
    }

    fn viewers(&mut self, viewers: &[Viewer]) -> Option<String> {
        let others = viewers.iter().filter(|viewer| !viewer.is_you).map(|viewer| {
            let keys = if viewer.in_control { " (whose keys reach the VM)" } else { "" };
            format!("{}{}{keys}", shown(&viewer.user), about(viewer.guest.as_deref()))
        });
        let others = others.collect::<Vec<_>>().join(", ");
        if others == self.others {
            return None;
        }
        self.others = others;
        Some(if self.others.is_empty() {
            "nobody else looks".to_owned()
        } else {
            format!("looking too: {}", self.others)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let viewer = |user: &str, in_control, is_you| Viewer {
            console: "consoles/a".to_owned(),
            user: user.to_owned(),
            in_control,
            may_control: true,
            is_you,
            guest: None,
        };
        let mut told = Told::new(ConsoleMode::Control);
        let me = viewer("alice@local", false, true);
        let viewers =
            |others: &[Viewer]| Notice::Viewers { viewers: [std::slice::from_ref(&me), others].concat() };
        assert_eq!(told.words(&viewers(&[])), None);
        let bob = viewers(&[viewer("bob\u{7}", true, false)]);
        let said = "looking too: bob\\u{7} (whose keys reach the VM)";
        assert_eq!(told.words(&bob).as_deref(), Some(said));
        assert_eq!(told.words(&bob), None);
        assert_eq!(told.words(&viewers(&[])).as_deref(), Some("nobody else looks"));
        let guest = viewer("guest link 7f of bob@local", false, false);
        let guest = Viewer { guest: Some("the vendor".to_owned()), ..guest };
        let said = "looking too: guest link 7f of bob@local (the vendor)";
        assert_eq!(told.words(&viewers(&[guest])).as_deref(), Some(said));
    }

    #[test]
    fn who_only_looks_hears_nothing_of_keys() {
        let control = Notice::Control { in_control: false, by: "bob@local".to_owned() };
        assert_eq!(Told::new(ConsoleMode::View).words(&control), None);
        let said = Told::new(ConsoleMode::Control).words(&control).unwrap();
        assert!(said.contains("bob@local"), "{said}");
    }
}

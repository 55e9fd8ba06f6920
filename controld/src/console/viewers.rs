//! Those who look at one VM in one way. What one of them types reaches it: whoever came first and may, until they leave,
//! hand it on, or another who may takes it.

use std::collections::BTreeMap;

use horcrux_proto::console::{Notice, Viewer};
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use tokio::sync::{mpsc, watch};

use super::Open;

/// Changes that one viewer may be behind. Each tells all there is, so one that is left out is told by the next.
const BEHIND: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Viewers(BTreeMap<(VmUuid, i32), Vec<Member>>);

#[derive(Debug)]
struct Member {
    id: String,
    user: String,
    /// Of a guest: what its link is for.
    guest: Option<String>,
    may_control: bool,
    control: watch::Sender<bool>,
    notices: mpsc::Sender<Notice>,
}

impl Member {
    fn in_control(&self) -> bool {
        *self.control.borrow()
    }
}

impl Viewers {
    /// Whether it has control, now and later, and what it is told.
    pub(super) fn join(&mut self, open: &Open) -> (watch::Receiver<bool>, mpsc::Receiver<Notice>) {
        let all = self.0.entry((open.vm, open.kind.into())).or_default();
        let may_control = open.mode == ConsoleMode::Control;
        let has_control = may_control && !all.iter().any(Member::in_control);
        let (control, controls) = watch::channel(has_control);
        let (notices, told) = mpsc::channel(BEHIND);
        let guest = open.guest.as_ref().map(|guest| guest.comment.clone());
        let (id, user) = (open.id.clone(), open.user.clone());
        all.push(Member { id, user, guest, may_control, control, notices });
        tell(all);
        (controls, told)
    }

    pub(super) fn leave(&mut self, open: &Open) {
        let key = (open.vm, open.kind.into());
        let Some(all) = self.0.get_mut(&key) else { return };
        all.retain(|member| member.id != open.id);
        if all.is_empty() {
            self.0.remove(&key);
            return;
        }
        if !all.iter().any(Member::in_control)
            && let Some(next) = all.iter().position(|member| member.may_control)
        {
            hand(all, next, &open.user);
        }
        tell(all);
    }

    pub(super) fn take(&mut self, open: &Open) {
        self.pass(open, |member| member.id == open.id);
    }

    /// Only who has it can give it.
    pub(super) fn give(&mut self, open: &Open, to: &str) {
        if self.is_in_control(&open.vm, open.kind, &open.id) {
            self.pass(open, |member| member.id == to);
        }
    }

    pub(super) fn is_in_control(&self, vm: &VmUuid, kind: ConsoleKind, id: &str) -> bool {
        let all = self.0.get(&(*vm, kind.into()));
        all.is_some_and(|all| all.iter().any(|member| member.id == id && member.in_control()))
    }

    fn pass(&mut self, open: &Open, to: impl Fn(&Member) -> bool) {
        let Some(all) = self.0.get_mut(&(open.vm, open.kind.into())) else { return };
        let Some(next) = all.iter().position(|member| member.may_control && to(member)) else { return };
        if !all[next].in_control() {
            hand(all, next, &open.user);
            tell(all);
        }
    }
}

/// Control goes to one of them, by somebody's doing.
fn hand(all: &[Member], next: usize, by: &str) {
    for (at, member) in all.iter().enumerate() {
        let in_control = at == next;
        let changed = member.control.send_if_modified(|had| std::mem::replace(had, in_control) != in_control);
        if changed {
            say(member, Notice::Control { in_control, by: by.to_owned() });
        }
    }
}

fn tell(all: &[Member]) {
    for member in all {
        let seen = |other: &Member| Viewer {
            console: format!("consoles/{}", other.id),
            user: other.user.clone(),
            in_control: other.in_control(),
            may_control: other.may_control,
            is_you: other.id == member.id,
            guest: other.guest.clone(),
        };
        say(member, Notice::Viewers { viewers: all.iter().map(seen).collect() });
    }
}

fn say(member: &Member, notice: Notice) {
    if member.notices.try_send(notice).is_err() {
        tracing::debug!(console = member.id, "a viewer is behind with what is told of the others");
    }
}

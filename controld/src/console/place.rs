//! Where a VM is now, as far as its console needs it.

use horcrux_proto::name::{NodeName, Resource, VmUuid};
use horcrux_proto::v1::{NodeMode, NodeState, VmJob, VmState};

use crate::live::fleet::Fleet;
use crate::live::object::Facts;
use crate::live::{Live, Stopped};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: NodeName,
    pub node_id: String,
    pub display_name: String,
    /// When it was started, where that is known: another time is another run.
    pub started_ms: Option<i64>,
    pub state: VmState,
    /// It is on its way to another node.
    pub is_leaving: bool,
    /// Nobody but the node itself says that it is there.
    pub is_contested: bool,
    pub is_unmanaged: bool,
    pub node_state: NodeState,
    pub is_locked: bool,
    /// Why its node lets no console be opened, where it says so.
    pub forbidden: Option<String>,
}

impl Place {
    /// `None`: there is no such VM.
    pub async fn of(live: &Live, vm: &VmUuid) -> Result<Option<Self>, Stopped> {
        let vm = *vm;
        live.ask(move |fleet| Self::in_fleet(fleet, vm)).await
    }

    fn in_fleet(fleet: &Fleet, uuid: VmUuid) -> Option<Self> {
        let object = fleet.find(&Resource::Vm(uuid))?;
        let Facts::Vm(vm) = &object.facts else { return None };
        let facts = vm.facts.as_ref()?;
        let node = fleet.find(&Resource::Node(object.node.clone()))?;
        let Facts::Node(of) = &node.facts else { return None };
        let policy = of.facts.as_ref().and_then(|facts| facts.policy.as_ref());
        let forbidden = policy.filter(|policy| policy.mode() == NodeMode::Observe).map(|policy| {
            if policy.reason.is_empty() { "its mode is observe".to_owned() } else { policy.reason.clone() }
        });
        Some(Self {
            node: object.node.clone(),
            node_id: of.id.clone(),
            display_name: facts.display_name.clone(),
            started_ms: facts.started_unix_ms,
            state: facts.state(),
            is_leaving: facts.job() == VmJob::MigrationOut,
            is_contested: fleet.is_contested(&uuid),
            is_unmanaged: facts.unmanaged,
            node_state: fleet.node_state(&object.node),
            is_locked: of.locked_reason.is_some(),
            forbidden,
        })
    }

    /// It has a screen and a serial line now. Of a state that isn't known, opening tells.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.state.is_off()
    }

    /// In words.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            VmState::Unspecified => "in an unknown state",
            VmState::Running | VmState::Blocked => "running",
            VmState::Paused => "paused",
            VmState::ShuttingDown => "shutting down",
            VmState::ShutOff => "shut off",
            VmState::Crashed => "crashed",
            VmState::PmSuspended => "suspended",
        }
    }
}

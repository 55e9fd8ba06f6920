//! What a watcher's privileges open.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use horcrux_live::feed;
use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{PoolName, Resource};

use crate::access::path::Path;
use crate::access::rights::{Labels, Rights, Sight};

/// Watchers of equal rights see the same.
#[derive(Clone, Debug)]
pub struct Viewer {
    rights: Arc<Rights>,
    /// Where tags and pools can matter.
    labels: Option<Arc<Labels>>,
    nodes: Sight,
    vms: Sight,
    containers: Sight,
}

impl Viewer {
    /// `by_pool`: the watcher asks for pools.
    #[must_use]
    pub fn new(rights: Arc<Rights>, labels: &Arc<Labels>, by_pool: bool) -> Self {
        Self {
            labels: (by_pool || rights.heed_labels()).then(|| Arc::clone(labels)),
            nodes: rights.sight(Privilege::SysAudit, "/nodes"),
            vms: rights.sight(Privilege::VmAudit, "/vms"),
            containers: rights.sight(Privilege::ContainerAudit, "/containers"),
            rights,
        }
    }
}

impl feed::Sight for Viewer {
    fn sees(&self, resource: &Resource) -> bool {
        let (sight, privilege) = match resource {
            Resource::Root | Resource::Pool(_) => return false,
            Resource::Node(_) => (self.nodes, Privilege::SysAudit),
            Resource::Vm(_) => (self.vms, Privilege::VmAudit),
            Resource::Container(..) => (self.containers, Privilege::ContainerAudit),
        };
        match sight {
            Sight::All => true,
            Sight::Nothing => false,
            Sight::Each => {
                let none = Labels::default();
                let labels = self.labels.as_deref().unwrap_or(&none);
                self.rights.allow(privilege, &Path::of(resource), labels)
            }
        }
    }

    fn is_in(&self, resource: &Resource, pools: &BTreeSet<PoolName>) -> bool {
        let of = self.labels.as_ref().and_then(|labels| labels.pools.get(resource));
        of.is_some_and(|of| !of.is_disjoint(pools))
    }
}

impl PartialEq for Viewer {
    fn eq(&self, other: &Self) -> bool {
        self.rights == other.rights && self.labels == other.labels
    }
}

impl Eq for Viewer {}

impl Hash for Viewer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Labels are compared; what is equal in all has equal rights.
        self.rights.hash(state);
    }
}

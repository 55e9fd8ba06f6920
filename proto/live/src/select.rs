//! What a request means among the objects that its caller sees, and the answer to it.

use horcrux_proto::name::{InvalidField, NodeName, Resource};
use horcrux_proto::v1::{
    ContainerServiceGetResponse, ContainerServiceListResponse, MetricValue, NodeServiceGetResponse,
    NodeServiceListResponse, Vm, VmServiceGetResponse, VmServiceListResponse, entity,
};
use tonic::Status;

use crate::fleet::Fleet;
use crate::object::Object;
use crate::page::page;

/// Objects by name.
pub type Objects = Vec<(String, entity::Object)>;
/// One object with its values.
pub type Whole = (entity::Object, Vec<MetricValue>);

/// Not exactly one thing is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    #[error("no {what} {asked:?} exists")]
    None { what: &'static str, asked: String },
    #[error("{count} {what}s fit {asked:?}: {listed}")]
    Several { what: &'static str, asked: String, count: usize, listed: String },
    #[error("name: must not be empty")]
    Empty,
}

/// Names in an error that lists what fits.
const CANDIDATES: usize = 10;

#[must_use]
pub fn invalid(error: &InvalidField) -> Status {
    Status::invalid_argument(error.to_string())
}

/// `nodes/NODE` or a bare name.
pub fn node_name(text: &str) -> Result<NodeName, Status> {
    text.strip_prefix("nodes/").unwrap_or(text).parse().map_err(|e| invalid(&e))
}

/// Those that `wanted` picks.
#[must_use]
pub fn objects(fleet: &Fleet, wanted: impl Fn(&Resource, &NodeName) -> bool) -> Objects {
    let passing = fleet.objects().filter(|o| wanted(&o.resource, &o.node));
    passing.filter_map(|o| Some((o.resource.to_string(), alone(fleet, o)?))).collect()
}

#[must_use]
pub fn whole(fleet: &Fleet, resource: &Resource) -> Option<Whole> {
    let object = fleet.find(resource)?;
    Some((alone(fleet, object)?, object.values()))
}

/// As one is told who gets this object and maybe not its node: with how that is, for the object's state is no newer.
fn alone(fleet: &Fleet, object: &Object) -> Option<entity::Object> {
    let mut told = object.entity().object?;
    match &mut told {
        entity::Object::Node(_) => {}
        entity::Object::Vm(vm) => vm.set_node_state(fleet.node_state(&object.node)),
        entity::Object::Container(container) => container.set_node_state(fleet.node_state(&object.node)),
    }
    Some(told)
}

/// Whether it is a VM, on `node` where one is given.
#[must_use]
pub fn is_vm(resource: &Resource, at: &NodeName, node: Option<&NodeName>) -> bool {
    matches!(resource, Resource::Vm(_)) && node.is_none_or(|node| node == at)
}

/// Whether it is a container, on `node` where one is given.
#[must_use]
pub fn is_container(resource: &Resource, at: &NodeName, node: Option<&NodeName>) -> bool {
    matches!(resource, Resource::Container(..)) && node.is_none_or(|node| node == at)
}

/// A uuid, `vms/UUID`, or `None`: a name that has to be looked for.
#[must_use]
pub fn vm_by_uuid(asked: &str) -> Option<Resource> {
    bare_vm(asked).parse().ok().map(Resource::Vm)
}

/// The one VM among `vms` that is called `asked`, or `NODE/NAME`.
pub fn vm_named(vms: Objects, asked: &str) -> Result<Resource, NotOne> {
    let name = bare_vm(asked);
    let on = |vm: &Vm, called: &str| name == format!("{}/{called}", vm.node.trim_start_matches("nodes/"));
    let called = |entity: &entity::Object| match entity {
        entity::Object::Vm(vm) => {
            vm.facts.as_ref().is_some_and(|f| f.display_name == name || on(vm, &f.display_name))
        }
        entity::Object::Node(_) | entity::Object::Container(_) => false,
    };
    let fits = vms.into_iter().filter(|(_, entity)| called(entity)).map(|(name, _)| name);
    only_one(&fits.collect::<Vec<_>>(), "VM", name)
}

/// The one container whose id begins with `asked`, or is called so; with `NODE/` before it, on that node.
pub fn container_named(containers: Objects, asked: &str) -> Result<Resource, NotOne> {
    if asked.is_empty() {
        return Err(NotOne::Empty);
    }
    let path = asked.strip_prefix("containers/").unwrap_or(asked);
    let (node, bare) = match path.split_once('/') {
        Some((node, bare)) => (Some(format!("nodes/{node}")), bare),
        None => (None, path),
    };
    let fits = |entity: &entity::Object| match entity {
        entity::Object::Container(container) => {
            node.as_ref().is_none_or(|node| *node == container.node)
                && container.facts.as_ref().is_some_and(|facts| {
                    facts.id.starts_with(bare) || facts.display_name.as_deref() == Some(bare)
                })
        }
        entity::Object::Node(_) | entity::Object::Vm(_) => false,
    };
    let mut names: Vec<_> =
        containers.into_iter().filter(|(_, entity)| fits(entity)).map(|(name, _)| name).collect();
    // What is named in full is meant, though other names begin with it.
    if names.iter().any(|name| name == asked) {
        names.retain(|name| name == asked);
    }
    only_one(&names, "container", path)
}

#[must_use]
pub fn node_list(objects: Objects, size: u32, token: &str) -> NodeServiceListResponse {
    let (objects, next_page_token) = page(objects, size, token);
    let node = |entity| match entity {
        entity::Object::Node(node) => Some(node),
        entity::Object::Vm(_) | entity::Object::Container(_) => None,
    };
    let nodes = objects.into_iter().filter_map(|(_, entity)| node(entity)).collect();
    NodeServiceListResponse { nodes, next_page_token }
}

#[must_use]
pub fn vm_list(objects: Objects, size: u32, token: &str) -> VmServiceListResponse {
    let (objects, next_page_token) = page(objects, size, token);
    let vm = |entity| match entity {
        entity::Object::Vm(vm) => Some(vm),
        entity::Object::Node(_) | entity::Object::Container(_) => None,
    };
    let vms = objects.into_iter().filter_map(|(_, entity)| vm(entity)).collect();
    VmServiceListResponse { vms, next_page_token }
}

#[must_use]
pub fn container_list(objects: Objects, size: u32, token: &str) -> ContainerServiceListResponse {
    let (objects, next_page_token) = page(objects, size, token);
    let container = |entity| match entity {
        entity::Object::Container(container) => Some(container),
        entity::Object::Node(_) | entity::Object::Vm(_) => None,
    };
    let containers = objects.into_iter().filter_map(|(_, entity)| container(entity)).collect();
    ContainerServiceListResponse { containers, next_page_token }
}

pub fn node((object, values): Whole) -> Result<NodeServiceGetResponse, Status> {
    match object {
        entity::Object::Node(node) => Ok(NodeServiceGetResponse { node: Some(node), values }),
        entity::Object::Vm(_) | entity::Object::Container(_) => Err(Status::not_found("no such node")),
    }
}

pub fn vm((object, values): Whole) -> Result<VmServiceGetResponse, Status> {
    match object {
        entity::Object::Vm(vm) => Ok(VmServiceGetResponse { vm: Some(vm), values }),
        entity::Object::Node(_) | entity::Object::Container(_) => Err(Status::not_found("no such VM")),
    }
}

pub fn container((object, values): Whole) -> Result<ContainerServiceGetResponse, Status> {
    match object {
        entity::Object::Container(container) => {
            Ok(ContainerServiceGetResponse { container: Some(container), values })
        }
        entity::Object::Node(_) | entity::Object::Vm(_) => Err(Status::not_found("no such container")),
    }
}

fn bare_vm(asked: &str) -> &str {
    asked.strip_prefix("vms/").unwrap_or(asked)
}

fn only_one(names: &[String], what: &'static str, asked: &str) -> Result<Resource, NotOne> {
    let asked = asked.to_owned();
    match names {
        [one] => one.parse().map_err(|_| NotOne::None { what, asked }),
        [] => Err(NotOne::None { what, asked }),
        several => {
            let listed = several.iter().take(CANDIDATES).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(NotOne::Several { what, asked, count: several.len(), listed })
        }
    }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::{Container, ContainerFacts};

    use super::*;

    fn container(node: &str, id: &str, called: Option<&str>) -> (String, entity::Object) {
        let facts = ContainerFacts {
            id: id.to_owned(),
            display_name: called.map(ToOwned::to_owned),
            ..ContainerFacts::default()
        };
        let name = format!("containers/{node}/{id}");
        let container = Container {
            name: name.clone(),
            node: format!("nodes/{node}"),
            facts: Some(facts),
            ..Container::default()
        };
        (name, entity::Object::Container(container))
    }

    #[test]
    fn a_container_goes_by_its_name_its_id_or_how_that_begins() {
        let all = || {
            vec![
                container("a", "abc1", Some("web")),
                container("a", "abc2", None),
                container("b", "abc1", None),
                container("b", "abc12", None),
            ]
        };
        let named = |asked| container_named(all(), asked).map(|found| found.to_string());
        assert_eq!(named("web").unwrap(), "containers/a/abc1");
        assert_eq!(named("a/abc2").unwrap(), "containers/a/abc2");
        assert_eq!(named("containers/b/abc1").unwrap(), "containers/b/abc1", "named in full");
        assert!(matches!(named("abc").unwrap_err(), NotOne::Several { count: 4, .. }));
        assert!(matches!(named("zz").unwrap_err(), NotOne::None { .. }));
        assert_eq!(named("").unwrap_err(), NotOne::Empty);
    }
}

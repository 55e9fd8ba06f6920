//! What people mean by a path or a resource: VMs and containers by name or by the start of an id, as `vm get` and
//! `container get` take them. Grants and labels hold on what the contract calls it, so it is looked up before it is sent.
//!
//! What isn't found by its full name may be about to come, or be hidden from who asks: it is passed on as it is, and the
//! caller is told. A name that isn't found can't be passed on.

use horcrux_proto::name::{NodeName, VmUuid};
use horcrux_proto::v1::pool_service_client::PoolServiceClient;
use horcrux_proto::v1::{Container, PoolServiceListRequest};

use crate::App;
use crate::failure::Failure;
use crate::inventory;
use crate::session::Session;
use crate::view::shown;

/// Where a grant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the contract has it.
    pub path: String,
    pub known: Known,
}

/// Whether there is something at a path, as far as the caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Yes,
    No,
}

/// What a path names, as it was written.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    Node(&'a str),
    Vm(&'a str),
    /// `/containers/x`: all on the node `x`, or the one container that is called so.
    Containers(&'a str),
    Container {
        node: &'a str,
        id: &'a str,
    },
    Pool(&'a str),
    /// It is always there, or nothing tells whether it is.
    Other,
}

impl Place {
    fn of(path: impl Into<String>, known: Known) -> Self {
        Self { path: path.into(), known }
    }

    /// For people, where nothing is known there.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        (self.known == Known::No).then(|| nothing_known(&self.path))
    }
}

/// What is said of a path where nothing is known.
#[must_use]
pub fn nothing_known(path: &str) -> String {
    format!("nothing is known at {}: it doesn't exist (yet), or you may not see it", shown(path))
}

impl App {
    /// As [`on_path`]; says it where nothing is known there.
    pub async fn place(&self, session: &Session, path: &str) -> Result<String, Failure> {
        let place = on_path(session, path).await?;
        if let Some(note) = place.note() {
            self.say(&note);
        }
        Ok(place.path)
    }
}

/// The path that is meant. One that makes no sense is left to the controller to refuse.
pub async fn on_path(session: &Session, path: &str) -> Result<Place, Failure> {
    let path = &*in_full(path);
    match named(path) {
        Named::Node(name) => {
            let found = seen(inventory::node(session, name).await)?;
            Ok(Place::of(path, known(found.is_some())))
        }
        Named::Vm(name) => {
            let is_uuid = name.parse::<VmUuid>().is_ok();
            match (inventory::vm(session, name).await, is_uuid) {
                (Err(Failure::NotFound(_) | Failure::Denied(_)), true) => Ok(Place::of(path, Known::No)),
                (found, _) => Ok(Place::of(format!("/{}", found?.vm.name), Known::Yes)),
            }
        }
        Named::Containers(name) => {
            let is_node =
                name.parse::<NodeName>().is_ok() && seen(inventory::node(session, name).await)?.is_some();
            let called = if is_node { None } else { container(session, name).await? };
            Ok(match called {
                Some(container) => Place::of(format!("/{}", container.name), Known::Yes),
                None => Place::of(path, known(is_node)),
            })
        }
        Named::Container { node, id } => Ok(match container(session, &format!("{node}/{id}")).await? {
            Some(container) => Place::of(format!("/{}", container.name), Known::Yes),
            None => Place::of(path, Known::No),
        }),
        Named::Pool(name) => {
            let list = |wire, r| async move { PoolServiceClient::new(wire).list(r).await };
            let pools = session.send(PoolServiceListRequest {}, list).await?.pools;
            let is_there = pools.iter().any(|pool| pool.name == format!("pools/{name}"));
            Ok(Place::of(path, known(is_there)))
        }
        Named::Other => Ok(Place::of(path, Known::Yes)),
    }
}

/// An object that gets into a pool or gets tags, as the contract has it. `vms/NAME` is left to the controller, which knows
/// VMs by their names too.
pub async fn on_object(session: &Session, text: &str) -> Result<String, Failure> {
    let text = text.strip_prefix('/').unwrap_or(text);
    match text.split_once('/') {
        Some(("nodes" | "vms", name)) if !name.is_empty() => Ok(text.to_owned()),
        Some(("containers", name)) if !name.is_empty() => match container(session, name).await? {
            Some(container) => Ok(container.name),
            // One that is gone may still be taken out of a pool.
            None if name.contains('/') => Ok(text.to_owned()),
            None => {
                let name = shown(name);
                Err(Failure::NotFound(format!("no container {name:?} exists, or it is not yours to see")))
            }
        },
        Some(_) | None => Err(Failure::Usage(format!(
            "{} is no object: write nodes/NODE, vms/NAME, vms/UUID, containers/NAME, containers/ID or \
             containers/NODE/ID",
            shown(text)
        ))),
    }
}

/// All of them, in their order.
pub async fn on_objects(session: &Session, texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        all.push(on_object(session, text).await?);
    }
    Ok(all)
}

/// `vms/shop`, `/vms/shop/` and `/vms/?tag=qa` are what people write for `/vms/shop` and `/vms?tag=qa`.
fn in_full(path: &str) -> String {
    let (path, selector) = path.split_at(path.find('?').unwrap_or(path.len()));
    if path.is_empty() {
        return selector.to_owned();
    }
    format!("/{}{selector}", path.trim_matches('/'))
}

fn named(path: &str) -> Named<'_> {
    let Some(rest) = path.strip_prefix('/') else { return Named::Other };
    let Some((kind, name)) = rest.split_once('/') else { return Named::Other };
    let is_one = !name.is_empty() && !name.contains('/');
    match (kind, name.split_once('/')) {
        ("nodes", None) if is_one => Named::Node(name),
        ("vms", _) if !name.is_empty() => Named::Vm(name),
        ("pools", None) if is_one => Named::Pool(name),
        ("containers", None) if is_one => Named::Containers(name),
        ("containers", Some((node, id))) if !node.is_empty() && !id.is_empty() && !id.contains('/') => {
            Named::Container { node, id }
        }
        _ => Named::Other,
    }
}

/// The one that is called so, or whose id begins so.
async fn container(session: &Session, name: &str) -> Result<Option<Container>, Failure> {
    seen(inventory::container_named(session, name).await)
}

fn known(is_there: bool) -> Known {
    if is_there { Known::Yes } else { Known::No }
}

/// What is absent and what is hidden are the same here.
fn seen<T>(asked: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(Failure::NotFound(_) | Failure::Denied(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_ends_say_nothing() {
        for (written, meant) in [
            ("/", "/"),
            ("vms/test", "/vms/test"),
            ("pools/web", "/pools/web"),
            ("/nodes/x/", "/nodes/x"),
            ("/vms/?tag=qa", "/vms?tag=qa"),
            ("vms?tag=a/b/", "/vms?tag=a/b/"),
            ("/containers/n/id", "/containers/n/id"),
            ("", ""),
        ] {
            assert_eq!(in_full(written), meant);
        }
    }

    #[test]
    fn a_path_says_what_it_names() {
        for (path, is) in [
            ("/nodes/web1", Named::Node("web1")),
            ("/vms/shop", Named::Vm("shop")),
            ("/vms/web1/shop", Named::Vm("web1/shop")),
            ("/containers/web1", Named::Containers("web1")),
            ("/containers/web1/3f2a", Named::Container { node: "web1", id: "3f2a" }),
            ("/pools/ci", Named::Pool("ci")),
        ] {
            assert_eq!(named(path), is, "{path}");
        }
        for other in
            ["", "/", "/vms", "/vms/", "/vms?tag=qa", "vms/shop", "/storage/web1/a", "/containers/a/b/c"]
        {
            assert_eq!(named(other), Named::Other, "{other}");
        }
    }
}

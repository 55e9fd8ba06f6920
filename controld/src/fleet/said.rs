//! What a node may say: wire types are checked and bounded here before anything is kept.

use std::collections::HashSet;

use horcrux_proto::agent::v1::{Event, Gap, Inventory, SampleBatch};
use horcrux_proto::name::{ContainerId, VmUuid};
use horcrux_proto::v1::{
    Absence, ContainerFacts, Disk, EventKind, GuestFacts, GuestFilesystem, GuestInterface,
    HypervisorFeatures, NetworkDevice, NodeFacts, VmFacts,
};

use prost::Message as _;

use crate::access::name::is_disruptive;

/// VMs, or containers, of one node; far beyond what a host runs, and what keeps a hostile node from growing the controller.
const MAX_GUESTS: usize = 20_000;
const MAX_TEXT: usize = 512;
const MAX_ABSENCES: usize = 64;
const MAX_SOURCES: usize = 64;
/// Records that a node can have lost: years of them.
const MOST_LOST: u64 = 1 << 32;
/// Bytes of all pieces of an inventory: with 20,000 guests it has a fifth of it.
const MAX_INVENTORY: usize = 64 << 20;
/// Network devices of a node or a VM, or disks.
const MAX_DEVICES: usize = 1024;
/// Users, interfaces, addresses of one or filesystems of a guest.
const MAX_GUEST_PARTS: usize = 64;
/// Of a container.
const MAX_LABELS: usize = 64;
/// A node's clock may be wrong, but not by more.
const AHEAD_MS: i64 = 24 * 3600 * 1000;

/// A batch or inventory that breaks the contract. The text is for the agent's log.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

pub fn checked_batch(mut batch: SampleBatch, now_ms: i64) -> Result<SampleBatch, Malformed> {
    if batch.taken_unix_ms < 0 || batch.taken_unix_ms > now_ms.saturating_add(AHEAD_MS) {
        return Err(Malformed(
            "samples are dated a day or more ahead of the controller's clock: set the node's clock",
        ));
    }
    if batch.counter_ids.len() != batch.counters.len() || batch.gauge_ids.len() != batch.gauges.len() {
        return Err(Malformed("a sample batch has columns of different lengths"));
    }
    for series in &mut batch.declared {
        series.instance = bounded(std::mem::take(&mut series.instance));
    }
    if batch.gauges.iter().any(|v| !v.is_finite()) {
        return Err(Malformed("a gauge is not a finite number: an absent value is left out"));
    }
    let measured = |metric| horcrux_proto::catalogue::info(metric).is_some_and(|i| i.is_measured());
    if !batch.declared.iter().all(|s| measured(s.metric())) {
        return Err(Malformed("a series is of a metric that agents don't measure"));
    }
    Ok(batch)
}

pub fn checked_gap(gap: Gap) -> Result<Gap, Malformed> {
    if gap.first_sequence == 0
        || gap.first_sequence > gap.last_sequence
        || gap.last_sequence - gap.first_sequence > MOST_LOST
    {
        return Err(Malformed("a gap has no end, or more in it than can be"));
    }
    Ok(Gap { reason: bounded(gap.reason), ..gap })
}

pub fn checked_inventory(mut inventory: Inventory) -> Result<Inventory, Malformed> {
    if inventory.gone_vms.len() > MAX_GUESTS || inventory.gone_containers.len() > MAX_GUESTS {
        return Err(Malformed("an inventory names too many guests that are gone"));
    }
    let vms = inventory.vms.iter().map(|vm| &vm.uuid).chain(&inventory.gone_vms);
    if !vms.into_iter().all(|uuid| uuid.parse::<VmUuid>().is_ok()) {
        return Err(Malformed("a VM's uuid is not one"));
    }
    let containers = inventory.containers.iter().map(|c| &c.id).chain(&inventory.gone_containers);
    if !containers.into_iter().all(|id| id.parse::<ContainerId>().is_ok()) {
        return Err(Malformed("a container's id is not one"));
    }
    if let Some(node) = &mut inventory.node {
        cut(&mut node.sources, MAX_SOURCES);
        for text in [&mut node.hostname, &mut node.kernel, &mut node.architecture] {
            *text = bounded(std::mem::take(text));
        }
        node.os = node.os.take().map(bounded);
        node.cpu_model = node.cpu_model.take().map(bounded);
        for source in &mut node.sources {
            source.detail = bounded(std::mem::take(&mut source.detail));
            source.instance = bounded(std::mem::take(&mut source.instance));
        }
        bound_node(node);
    }
    for vm in &mut inventory.vms {
        let VmFacts { display_name, absences, interfaces, connection, guest, .. } = vm;
        for why in [&mut vm.guest_unknown_reason, &mut vm.state_unknown_reason] {
            *why = bounded(std::mem::take(why));
        }
        if let Some(guest) = guest {
            bound_guest(guest);
        }
        cut(interfaces, MAX_DEVICES);
        for interface in interfaces {
            *interface = bounded(std::mem::take(interface));
        }
        *display_name = bounded(std::mem::take(display_name));
        *connection = bounded(std::mem::take(connection));
        bound_absences(absences);
    }
    for container in &mut inventory.containers {
        let ContainerFacts { cgroup_path, display_name, absences, .. } = container;
        *cgroup_path = bounded(std::mem::take(cgroup_path));
        *display_name = display_name.take().map(bounded);
        for why in [&mut container.name_unknown_reason, &mut container.state_unknown_reason] {
            *why = bounded(std::mem::take(why));
        }
        bound_absences(absences);
        container.image = container.image.take().map(bounded);
        let labels = std::mem::take(&mut container.labels).into_iter().take(MAX_LABELS);
        container.labels = labels.map(|(name, value)| (bounded(name), bounded(value))).collect();
    }
    Ok(inventory)
}

/// Gives back what the rest took: what is empty on the wire takes a hundred times as much here.
fn cut<T>(list: &mut Vec<T>, most: usize) {
    if list.len() > most {
        list.truncate(most);
        list.shrink_to_fit();
    }
}

fn bound_node(node: &mut NodeFacts) {
    cut(&mut node.network_devices, MAX_DEVICES);
    for NetworkDevice { name, master, parent, mac, .. } in &mut node.network_devices {
        *name = bounded(std::mem::take(name));
        for text in [master, parent, mac] {
            *text = text.take().map(bounded);
        }
    }
    cut(&mut node.disks, MAX_DEVICES);
    for Disk { name, model, .. } in &mut node.disks {
        *name = bounded(std::mem::take(name));
        *model = model.take().map(bounded);
    }
    if let Some(HypervisorFeatures { machine, .. }) = &mut node.hypervisor {
        *machine = machine.take().map(bounded);
    }
    bound_absences(&mut node.absences);
}

fn bound_guest(guest: &mut GuestFacts) {
    for text in [&mut guest.hostname, &mut guest.os, &mut guest.kernel] {
        *text = text.take().map(bounded);
    }
    let bound = |list: &mut Vec<String>| {
        cut(list, MAX_GUEST_PARTS);
        for text in list {
            *text = bounded(std::mem::take(text));
        }
    };
    bound(&mut guest.users);
    bound(&mut guest.unknown);
    cut(&mut guest.interfaces, MAX_GUEST_PARTS);
    for GuestInterface { name, mac, addresses } in &mut guest.interfaces {
        *name = bounded(std::mem::take(name));
        *mac = mac.take().map(bounded);
        bound(addresses);
    }
    cut(&mut guest.filesystems, MAX_GUEST_PARTS);
    for GuestFilesystem { mountpoint, kind, .. } in &mut guest.filesystems {
        *mountpoint = bounded(std::mem::take(mountpoint));
        *kind = bounded(std::mem::take(kind));
    }
    for load in [&mut guest.load_1m, &mut guest.load_5m, &mut guest.load_15m] {
        *load = load.take().filter(|load| load.is_finite());
    }
}

fn bound_absences(absences: &mut Vec<Absence>) {
    cut(absences, MAX_ABSENCES);
    for absence in absences {
        absence.instance = bounded(std::mem::take(&mut absence.instance));
        absence.reason = bounded(std::mem::take(&mut absence.reason));
    }
}

/// What a node may tell: what happened on it. Of nodes' comings and goings the controller tells.
pub fn checked_event(event: Event) -> Result<Event, Malformed> {
    match event.kind() {
        EventKind::AgentStarted
        | EventKind::SourceLost
        | EventKind::SourceBack
        | EventKind::VmAppeared
        | EventKind::VmStateChanged
        | EventKind::VmGone
        | EventKind::ContainerAppeared
        | EventKind::ContainerGone
        | EventKind::ClockStepped
        | EventKind::FilesystemReadOnly
        | EventKind::FilesystemWritable
        | EventKind::VmDefined
        | EventKind::VmUndefined
        | EventKind::VmStarted
        | EventKind::VmSuspended
        | EventKind::VmResumed
        | EventKind::VmStopped
        | EventKind::VmMigratedAway
        | EventKind::VmShutDown
        | EventKind::VmPmSuspended
        | EventKind::VmCrashed
        | EventKind::VmRebooted
        | EventKind::VmWatchdogFired
        | EventKind::VmIoError
        | EventKind::VmGraphics
        | EventKind::VmBlockThreshold
        | EventKind::VmBalloonChanged
        | EventKind::VmDeviceAdded
        | EventKind::VmDeviceRemoved
        | EventKind::VmDeviceRemovalFailed
        | EventKind::VmBlockJob
        | EventKind::VmMigrationIteration
        | EventKind::VmJobCompleted
        | EventKind::VmGuestAgentConnected
        | EventKind::VmGuestAgentDisconnected
        | EventKind::ContainerOomKilled
        | EventKind::ContainerStateChanged
        | EventKind::ContainerHealthChanged
        | EventKind::EventsShed => Ok(Event { detail: bounded(event.detail), ..event }),
        EventKind::Unspecified
        | EventKind::NodeConnected
        | EventKind::NodeLate
        | EventKind::NodeDown
        | EventKind::NodeEnrolled
        | EventKind::NodeDeleted
        | EventKind::NodeLocked
        | EventKind::NodeUnlocked
        | EventKind::NodeIdentityShared
        | EventKind::ClockSkewed
        | EventKind::ClockAgrees => Err(Malformed("an event is of a kind that nodes don't tell")),
    }
}

/// Text from a node, without what steers terminals and not longer than people read.
pub fn bounded(text: String) -> String {
    if text.len() <= MAX_TEXT && !text.contains(is_disruptive) {
        return text;
    }
    text.chars().map(|c| if is_disruptive(c) { '\u{fffd}' } else { c }).take(MAX_TEXT / 4).collect()
}

/// The pieces of a complete inventory that came so far.
#[derive(Debug, Default)]
pub struct Pieces {
    so_far: Option<(u32, Inventory)>,
    bytes: usize,
}

impl Pieces {
    /// Adds what came; gives what can be taken now.
    pub fn add(&mut self, mut came: Inventory) -> Result<Option<Inventory>, Malformed> {
        let (piece, more) = (came.piece, came.more_follows);
        (came.piece, came.more_follows) = (0, false);
        if !came.complete {
            return if piece > 0 || more {
                Err(Malformed("only a complete inventory comes in pieces"))
            } else {
                Ok(Some(came))
            };
        }
        if piece == 0 {
            self.bytes = 0;
        }
        self.bytes += came.encoded_len();
        if self.bytes > MAX_INVENTORY {
            self.so_far = None;
            return Err(Malformed("an inventory is larger than a node's can be"));
        }
        let whole = match (piece, self.so_far.take()) {
            (0, _) => came,
            (piece, Some((last, mut whole))) if piece == last + 1 => {
                whole.node = came.node.or(whole.node);
                whole.vms.append(&mut came.vms);
                whole.containers.append(&mut came.containers);
                whole
            }
            _ => return Err(Malformed("a piece of an inventory is missing")),
        };
        bound_guests(&whole)?;
        if more {
            self.so_far = Some((piece, whole));
            return Ok(None);
        }
        Ok(Some(whole))
    }
}

/// Brings the kept whole up to date with what came, and returns it.
pub fn merge<'a>(whole: &'a mut Option<Inventory>, news: &Inventory) -> Result<&'a Inventory, Malformed> {
    if news.complete {
        *whole = Some(news.clone());
    } else if let Some(whole) = whole {
        add(whole, news);
    }
    let whole = whole.as_ref().ok_or(Malformed("a stream's first inventory must be complete"))?;
    bound_guests(whole)?;
    Ok(whole)
}

fn bound_guests(whole: &Inventory) -> Result<(), Malformed> {
    if whole.vms.len() > MAX_GUESTS || whole.containers.len() > MAX_GUESTS {
        return Err(Malformed("a node lists too many guests"));
    }
    Ok(())
}

fn add(whole: &mut Inventory, news: &Inventory) {
    let vms: HashSet<&String> = news.vms.iter().map(|vm| &vm.uuid).chain(&news.gone_vms).collect();
    whole.vms.retain(|vm| !vms.contains(&vm.uuid));
    whole.vms.extend(news.vms.iter().cloned());
    let containers: HashSet<&String> =
        news.containers.iter().map(|container| &container.id).chain(&news.gone_containers).collect();
    whole.containers.retain(|container| !containers.contains(&container.id));
    whole.containers.extend(news.containers.iter().cloned());
    if news.node.is_some() {
        whole.node.clone_from(&news.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms(names: &[(&str, &str)]) -> Vec<VmFacts> {
        let vm = |(uuid, name): &(&str, &str)| VmFacts {
            uuid: (*uuid).to_owned(),
            display_name: (*name).to_owned(),
            ..VmFacts::default()
        };
        names.iter().map(vm).collect()
    }

    #[test]
    fn what_changed_replaces_what_was_and_the_rest_stays() {
        let mut whole = None;
        let all = vms(&[("1", "web"), ("2", "db"), ("3", "mail")]);
        merge(&mut whole, &Inventory { complete: true, vms: all, ..Inventory::default() }).unwrap();
        let news = Inventory {
            vms: vms(&[("2", "database"), ("4", "new")]),
            gone_vms: vec!["3".to_owned()],
            ..Inventory::default()
        };
        let merged = merge(&mut whole, &news).unwrap();
        assert_eq!(merged.vms, vms(&[("1", "web"), ("2", "database"), ("4", "new")]));
    }

    #[test]
    fn guests_that_come_one_message_after_another_are_bounded_too() {
        let mut whole = Some(Inventory::default());
        let news = |from: usize| Inventory {
            vms: (from..from + MAX_GUESTS / 2)
                .map(|number| VmFacts { uuid: number.to_string(), ..VmFacts::default() })
                .collect(),
            ..Inventory::default()
        };
        merge(&mut whole, &news(0)).unwrap();
        merge(&mut whole, &news(MAX_GUESTS / 2)).unwrap();
        assert_eq!(merge(&mut whole, &news(MAX_GUESTS)).unwrap_err().0, "a node lists too many guests");
    }

    #[test]
    fn pieces_make_one_inventory_and_none_may_be_missing() {
        let piece = |number: u32, more_follows, names: &[(&str, &str)]| Inventory {
            complete: true,
            piece: number,
            more_follows,
            vms: vms(names),
            ..Inventory::default()
        };
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(piece(0, true, &[("1", "a")])).unwrap(), None);
        assert_eq!(pieces.add(piece(1, true, &[("2", "b")])).unwrap(), None);
        let whole = pieces.add(piece(2, false, &[("3", "c")])).unwrap().unwrap();
        assert_eq!(whole.vms, vms(&[("1", "a"), ("2", "b"), ("3", "c")]));
        assert!(pieces.add(piece(1, false, &[])).is_err(), "its beginning is missing");
        pieces.add(piece(0, true, &[("1", "a")])).unwrap();
        assert!(pieces.add(piece(2, false, &[])).is_err(), "its middle is missing");
        pieces.add(piece(0, true, &[("1", "a")])).unwrap();
        let again = pieces.add(piece(0, false, &[("2", "b")])).unwrap().unwrap();
        assert_eq!(again.vms, vms(&[("2", "b")]), "a beginning starts over");
    }

    #[test]
    fn what_is_cut_off_takes_no_room_and_pieces_have_an_end() {
        let empty = GuestFilesystem::default();
        let guest = GuestFacts { filesystems: vec![empty; 100_000], ..GuestFacts::default() };
        let vm =
            VmFacts { guest: Some(guest), ..vms(&[("aaaaaaaa-0000-4000-8000-000000000001", "a")]).remove(0) };
        let checked = checked_inventory(Inventory { vms: vec![vm], ..Inventory::default() }).unwrap();
        let kept = &checked.vms[0].guest.as_ref().unwrap().filesystems;
        assert!((kept.len(), kept.capacity()) < (MAX_GUEST_PARTS + 1, 2 * MAX_GUEST_PARTS));
        let mut pieces = Pieces::default();
        let name = "x".repeat(1 << 20);
        let refused = (0..100).find_map(|piece| {
            let vms = vms(&[("1", name.as_str())]);
            let came = Inventory { complete: true, piece, more_follows: true, vms, ..Inventory::default() };
            pieces.add(came).err().map(|why| (piece, why.0))
        });
        assert_eq!(refused, Some((63, "an inventory is larger than a node's can be")));
    }

    #[test]
    fn text_that_steers_a_terminal_is_made_plain() {
        assert_eq!(bounded("web\u{1b}[2J\u{9b}\u{202e}".to_owned()), "web\u{fffd}[2J\u{fffd}\u{fffd}");
        assert_eq!(bounded("we\u{200b}b".to_owned()), "we\u{fffd}b");
        assert_eq!(bounded("Büro 1".to_owned()), "Büro 1");
    }

    #[test]
    fn a_node_tells_no_news_of_nodes() {
        let event = |kind: EventKind| Event { kind: kind.into(), ..Event::default() };
        assert!(checked_event(event(EventKind::NodeDeleted)).is_err());
        assert!(checked_event(Event { kind: 4242, ..Event::default() }).is_err());
        assert!(checked_event(event(EventKind::VmGone)).is_ok());
    }
}

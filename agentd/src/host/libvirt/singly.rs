//! Domain by domain, for drivers without bulk statistics, such as LXC's: what their other calls tell, under bulk's keys.

use horcrux_libvirt::virt::connect::Connect;
use horcrux_libvirt::virt::domain::Domain;
use horcrux_libvirt::virt::error::{Error, ErrorNumber};

use horcrux_proto::name::VmUuid;

use super::params::{INTERFACE_KEYS, Param, Params};
use super::raw::Record;

pub(super) fn all(connect: &Connect) -> Result<Vec<Record>, Error> {
    let mut all = Vec::new();
    for domain in connect.list_all_domains(0)? {
        match one(&domain) {
            Ok(record) => all.push(record),
            // Gone since it was listed.
            Err(error) if error.code().is(ErrorNumber::NoDomain) => {}
            // The list is all there is, or none.
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn one(domain: &Domain) -> Result<Record, Error> {
    let info = domain.info()?;
    let mut list = vec![("state.state".to_owned(), Param::Unsigned(info.state.to_raw().into()))];
    if domain.is_active()? {
        list.push(("cpu.time".to_owned(), Param::Unsigned(info.cpu_time)));
        interfaces(domain, &mut list)?;
    }
    let uuid = VmUuid::from_bytes(domain.uuid()?.into_bytes());
    Ok(Record { uuid, name: domain.name()?, params: Params::new(list) })
}

fn interfaces(domain: &Domain, list: &mut Vec<(String, Param)>) -> Result<(), Error> {
    let devices = devices(&domain.xml_desc(0)?);
    let count = u64::try_from(devices.len()).unwrap_or(0);
    list.push(("net.count".to_owned(), Param::Unsigned(count)));
    for (at, device) in devices.into_iter().enumerate() {
        // One that is gone, or that the driver can't read, has a name and no values.
        if let Ok(s) = domain.interface_stats(&device) {
            let values = [
                s.rx_bytes,
                s.rx_packets,
                s.rx_errs,
                s.rx_drop,
                s.tx_bytes,
                s.tx_packets,
                s.tx_errs,
                s.tx_drop,
            ];
            let named = INTERFACE_KEYS.into_iter().zip(values);
            list.extend(named.map(|(key, value)| (format!("net.{at}.{key}"), Param::Signed(value))));
        }
        list.push((format!("net.{at}.name"), Param::Text(device)));
    }
    Ok(())
}

/// The host's ends of its interfaces, from a description as libvirt writes it.
fn devices(xml: &str) -> Vec<String> {
    let of_one = |begun: &str| {
        let (interface, _) = begun.split_once("</interface>")?;
        let (_, target) = interface.split_once("<target dev='")?;
        let (name, _) = target.split_once('\'')?;
        Some(name.to_owned())
    };
    xml.split("<interface ").skip(1).filter_map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_ends_of_interfaces_are_found_and_nothing_else_s() {
        let xml = "<devices><filesystem type='mount'><target dir='/'/></filesystem>\
            <disk type='file'><target dev='vda' bus='virtio'/></disk>\
            <interface type='bridge'>\n  <source bridge='vmbr0'/>\n  <target dev='vnet0'/>\n</interface>\
            <interface type='user'><mac address='52:54:00:00:00:01'/></interface>\
            <interface type='network'><target dev='vnet7'/></interface><interface type='half'><target dev='x";
        assert_eq!(devices(xml), ["vnet0", "vnet7"]);
        assert_eq!(devices(""), <[&str; 0]>::default());
    }

    #[test]
    fn what_it_reads_of_a_domain_is_what_bulk_statistics_tell() {
        horcrux_libvirt::load().unwrap();
        let connect = Connect::open(Some("test:///default")).unwrap();
        let [record] = all(&connect).unwrap().try_into().unwrap();
        assert_eq!(
            (record.name.as_str(), record.params.state()),
            ("test", horcrux_proto::v1::VmState::Running)
        );
        assert!(record.params.number("cpu.time").is_some());
    }
}

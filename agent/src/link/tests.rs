use super::joints::other_routed;
use super::*;

fn device(index: u32, name: &str) -> Device {
    Device {
        index,
        name: name.into(),
        mac: vec![2, 0, 0, 0, 0, index as u8],
        mtu: Some(1_500),
        admin_up: true,
        carrier: true,
        loopback: false,
        kind: DeviceKind::Hardware,
        controller: None,
    }
}

fn has(index: u32, net: &str) -> DeviceAddress {
    DeviceAddress { index, net: net.parse().unwrap(), deprecated: false }
}

fn leads(index: u32, destination: &str) -> TableRoute {
    TableRoute { index, destination: destination.parse().unwrap(), via: None }
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn an_interface_is_found_by_name_mac_or_prefix() {
    let devices = [device(1, "lo"), device(2, "eth0"), device(3, "eth1")];
    let addresses = [has(2, "198.18.10.10/24"), has(3, "203.0.113.10/24")];
    let find = |selector: &InterfaceSelector| {
        select(&devices, &addresses, selector, None).map(|device| device.name.as_str())
    };
    assert_eq!(find(&InterfaceSelector::Name("eth1".into())), Some("eth1"));
    assert_eq!(find(&InterfaceSelector::Name("eth".into())), None);
    assert_eq!(find(&InterfaceSelector::Mac("02:00:00:00:00:02".into())), Some("eth0"));
    assert_eq!(find(&InterfaceSelector::Mac("02-00-00-00-00-03".into())), Some("eth1"));
    assert_eq!(find(&InterfaceSelector::Mac("2:0:0:0:0:2".into())), None);
    assert_eq!(find(&InterfaceSelector::Prefix("198.18.10.0/24".parse().unwrap())), Some("eth0"));
    assert_eq!(find(&InterfaceSelector::Prefix("198.18.11.0/24".parse().unwrap())), None);
}

#[test]
fn an_interface_known_by_prefix_stays_itself_without_its_address() {
    let devices = [device(2, "eth0"), device(3, "eth1")];
    let selector = InterfaceSelector::Prefix("198.18.10.0/24".parse().unwrap());
    let found = select(&devices, &[], &selector, Some(2));
    assert_eq!(found.map(|device| device.index), Some(2));
}

#[test]
fn a_mac_shared_with_a_bridge_means_the_bridge() {
    let mut port = device(2, "eth0");
    port.controller = Some(3);
    let mut bridge = device(3, "br0");
    bridge.kind = DeviceKind::Bridge;
    bridge.mac.clone_from(&port.mac);
    let selector = InterfaceSelector::Mac("02:00:00:00:00:02".into());
    let found = [port, bridge];
    let found = select(&found, &[], &selector, None);
    assert_eq!(found.map(|device| device.index), Some(3));
}

#[test]
fn the_life_of_an_interface_is_read_from_its_flags() {
    let up = device(2, "eth0");
    assert_eq!(interface(Some(&up)), Interface::Up { name: "eth0".into(), index: 2 });
    let no_carrier = Device { carrier: false, ..up.clone() };
    assert_eq!(interface(Some(&no_carrier)), Interface::NoCarrier { name: "eth0".into() });
    let admin_down = Device { admin_up: false, ..no_carrier };
    assert_eq!(interface(Some(&admin_down)), Interface::AdminDown { name: "eth0".into() });
    assert_eq!(interface(None), Interface::Missing);
}

#[test]
fn probes_bind_to_a_preferred_address_inside_the_prefixes() {
    let eth0 = device(2, "eth0");
    let old = DeviceAddress { deprecated: true, ..has(2, "198.18.10.9/24") };
    let addresses =
        [has(3, "198.18.10.7/24"), has(2, "192.0.2.1/24"), old, has(2, "198.18.10.10/24")];
    let found = sources(&eth0, &addresses, &prefixes(&["198.18.10.0/24"]));
    assert_eq!(found, Sources { v4: Some([198, 18, 10, 10].into()), v6: None });
    let outside = sources(&eth0, &addresses, &prefixes(&["198.19.0.0/16"]));
    assert_eq!(outside, Sources::default());
    let absent = address(Some(&eth0), &addresses[1..2], outside, None);
    assert_eq!(absent, Address::Absent { others: vec![[192, 0, 2, 1].into()] });
}

#[test]
fn on_loopback_the_whole_subnet_is_owned_and_elsewhere_only_what_is_listed() {
    let mut lo = device(1, "lo");
    lo.loopback = true;
    let addresses = [has(1, "127.0.0.1/8"), has(2, "198.18.0.1/15")];
    let inside_127 = sources(&lo, &addresses, &prefixes(&["127.18.11.0/24"]));
    assert_eq!(inside_127.v4, Some("127.18.11.1".parse().unwrap()));
    assert_eq!(sources(&lo, &addresses, &prefixes(&["198.18.11.0/24"])).v4, None);
    let hardware = device(2, "eth0");
    assert_eq!(sources(&hardware, &addresses, &prefixes(&["198.18.11.0/24"])).v4, None);
}

#[test]
fn the_address_shown_is_of_the_first_anchors_family() {
    let eth0 = device(2, "eth0");
    let addresses = [has(2, "198.18.10.10/24"), has(2, "2001:db8::10/64")];
    let sources = sources(&eth0, &addresses, &prefixes(&["198.18.0.0/15", "2001:db8::/32"]));
    let shown = |anchor: &str| address(Some(&eth0), &addresses, sources, anchor.parse().ok());
    assert_eq!(shown("2001:db8:1::1"), Address::Present("2001:db8::10".parse().unwrap()));
    assert_eq!(shown("198.18.0.10"), Address::Present([198, 18, 10, 10].into()));
}

/// Names of the other routed interfaces of a machine whose dedicated interface is eth0.
fn others(
    change: impl FnOnce(&mut Device),
    addresses: &[DeviceAddress],
    routes: &[TableRoute],
) -> Vec<String> {
    let mut devices = [device(1, "lo"), device(2, "eth0"), device(3, "eth1")];
    devices[0].loopback = true;
    change(&mut devices[2]);
    let network = prefixes(&["198.18.0.0/15"]);
    let found = other_routed(Some(&devices[1]), &devices, addresses, routes, &network);
    found.iter().map(|device| device.name.clone()).collect()
}

#[test]
fn a_second_interface_with_a_way_out_is_seen() {
    let inet = [has(2, "198.18.10.10/24"), has(3, "203.0.113.10/24")];
    let default = [leads(2, "198.18.0.0/15"), leads(3, "0.0.0.0/0")];
    assert_eq!(others(|_| {}, &inet, &default), ["eth1"]);
    assert_eq!(others(|eth1| eth1.admin_up = false, &inet, &default), [""; 0]);
    assert_eq!(others(|eth1| eth1.controller = Some(9), &inet, &default), [""; 0]);
    assert_eq!(others(|_| {}, &inet, &[leads(3, "203.0.113.0/24")]), [""; 0]);
    assert_eq!(others(|_| {}, &inet[..1], &default), [""; 0]);
    assert_eq!(others(|_| {}, &[has(3, "fe80::1/64")], &default), [""; 0]);
    assert_eq!(others(|_| {}, &[has(3, "198.18.11.1/24")], &default), [""; 0]);
    assert_eq!(others(|_| {}, &inet, &[leads(2, "0.0.0.0/0")]), [""; 0]);
}

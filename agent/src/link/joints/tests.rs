//! For each mechanism a machine that joins and its neighbour that does not.

use super::*;

const NETWORK: &str = "198.18.0.0/15";
const NETWORK_V6: &str = "2001:db8:18::/48";
const ON: Forwarding = Forwarding { v4: true, v6: true };

/// A machine whose dedicated interface is eth0 (index 2).
struct Machine {
    devices: Vec<Device>,
    addresses: Vec<DeviceAddress>,
    routes: Vec<TableRoute>,
    behind: Vec<BridgeNeighbour>,
    forwarding: Vec<(u32, Forwarding)>,
    listeners: Vec<Listener>,
}

fn device(index: u32, name: &str, kind: DeviceKind) -> Device {
    Device {
        index,
        name: name.into(),
        mac: Vec::new(),
        mtu: Some(1_500),
        admin_up: true,
        carrier: true,
        loopback: false,
        kind,
        controller: None,
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            devices: vec![
                Device { loopback: true, ..device(1, "lo", DeviceKind::Hardware) },
                device(2, "eth0", DeviceKind::Hardware),
            ],
            addresses: Vec::new(),
            routes: Vec::new(),
            behind: Vec::new(),
            forwarding: Vec::new(),
            listeners: Vec::new(),
        }
        .address(2, "198.18.10.10/24")
        .address(2, "2001:db8:18:10::10/64")
        .route(2, NETWORK)
    }

    fn device(mut self, index: u32, name: &str, kind: DeviceKind) -> Self {
        self.devices.push(device(index, name, kind));
        self
    }

    fn down(mut self, index: u32) -> Self {
        self.change(index, |device| device.admin_up = false);
        self
    }

    fn port(mut self, index: u32, bridge: u32) -> Self {
        self.change(index, |device| device.controller = Some(bridge));
        self
    }

    fn change(&mut self, index: u32, change: impl FnOnce(&mut Device)) {
        change(self.devices.iter_mut().find(|device| device.index == index).expect("it is there"));
    }

    fn address(mut self, index: u32, net: &str) -> Self {
        let net = net.parse().expect("a prefix");
        self.addresses.push(DeviceAddress { index, net, deprecated: false });
        self
    }

    fn route(mut self, index: u32, destination: &str) -> Self {
        let destination = destination.parse().expect("a prefix");
        self.routes.push(TableRoute { index, destination, via: None });
        self
    }

    fn default_route(mut self, index: u32, via: &str) -> Self {
        let (destination, via) = ("0.0.0.0/0".parse().expect("a prefix"), via.parse().ok());
        self.routes.push(TableRoute { index, destination, via });
        self
    }

    fn behind(mut self, port: u32, address: &str) -> Self {
        self.behind.push(BridgeNeighbour { address: address.parse().expect("an address"), port });
        self
    }

    fn forwards(mut self, index: u32, forwarding: Forwarding) -> Self {
        self.forwarding.push((index, forwarding));
        self
    }

    fn listens(mut self, address: &str, port: u16, device: Option<u32>) -> Self {
        let address = address.parse().expect("an address");
        self.listeners.push(Listener { address, port, device });
        self
    }

    /// A second way, to the Internet.
    fn online(self) -> Self {
        self.device(3, "wlan0", DeviceKind::Hardware)
            .address(3, "192.168.1.7/24")
            .address(3, "2001:db8:ff::7/64")
            .route(3, "192.168.1.0/24")
            .route(3, "0.0.0.0/0")
    }

    fn joints(&self) -> Vec<Joint> {
        let prefixes = [NETWORK, NETWORK_V6].map(|text| text.parse().expect("a prefix"));
        joints(&Facts {
            dedicated: self.devices.iter().find(|device| device.index == 2).expect("eth0"),
            devices: &self.devices,
            addresses: &self.addresses,
            routes: &self.routes,
            behind: &self.behind,
            network_prefixes: &prefixes,
            forwarding: &self.forwarding,
            listeners: &self.listeners,
        })
    }
}

fn forwarding_to(with: &str, forwarding: Forwarding) -> Joint {
    Joint::Forwarding { with: with.into(), forwarding }
}

fn bridge(bridge: &str, with: &str) -> Joint {
    Joint::Bridge { bridge: bridge.into(), with: with.into() }
}

#[track_caller]
fn joins(machine: &Machine, expected: &[Joint]) {
    assert_eq!(machine.joints(), expected);
}

#[test]
fn forwarding_joins_two_networks_and_not_a_container_host() {
    let v4 = Forwarding { v4: true, v6: false };
    let v6 = Forwarding { v4: false, v6: true };
    joins(&Machine::new().online(), &[]);
    joins(&Machine::new().online().forwards(2, v4), &[forwarding_to("wlan0", v4)]);
    joins(&Machine::new().online().forwards(3, v4), &[forwarding_to("wlan0", v4)]);
    joins(&Machine::new().online().forwards(2, v6), &[forwarding_to("wlan0", v6)]);
    joins(&Machine::new().online().forwards(2, ON).down(3), &[]);
    // A hotspot has no way out of its own: it sells the dedicated network.
    let hotspot = Machine::new()
        .device(3, "wlan0", DeviceKind::Hardware)
        .address(3, "10.42.0.1/24")
        .route(3, "10.42.0.0/24")
        .forwards(2, ON);
    joins(&hotspot, &[forwarding_to("wlan0", v4)]);
    let containers = Machine::new()
        .device(3, "docker0", DeviceKind::Bridge)
        .device(4, "veth1", DeviceKind::Virtual)
        .port(4, 3)
        .address(3, "172.17.0.1/16")
        .route(3, "172.17.0.0/16")
        .forwards(2, ON)
        .forwards(3, ON);
    joins(&containers, &[]);
    let second_leg = Machine::new()
        .device(3, "eth1", DeviceKind::Hardware)
        .address(3, "198.18.11.1/24")
        .forwards(2, ON);
    joins(&second_leg, &[]);
}

#[test]
fn ipv6_is_forwarded_only_between_ipv6_networks() {
    let only_v4 = Machine::new()
        .device(3, "wlan0", DeviceKind::Hardware)
        .address(3, "192.168.1.7/24")
        .address(3, "fe80::7/64");
    joins(&only_v4.forwards(2, Forwarding { v4: false, v6: true }), &[]);
}

#[test]
fn a_bridge_joins_its_ports_and_a_virtual_machine_is_none() {
    let with = |other: DeviceKind| {
        Machine::new()
            .device(9, "br0", DeviceKind::Bridge)
            .device(3, "eth1", other)
            .port(2, 9)
            .port(3, 9)
    };
    joins(&with(DeviceKind::Hardware), &[bridge("br0", "eth1")]);
    joins(&with(DeviceKind::Tun), &[bridge("br0", "eth1")]);
    let alone = Machine::new().device(9, "br0", DeviceKind::Bridge).port(2, 9);
    joins(&alone, &[]);
    let bond = Machine::new()
        .device(9, "bond0", DeviceKind::Stacked)
        .device(3, "eth1", DeviceKind::Hardware)
        .port(2, 9)
        .port(3, 9);
    joins(&bond, &[]);
}

#[test]
fn a_dedicated_bridge_joins_hardware_and_tunnels_and_not_a_virtual_machine() {
    let over = |second: DeviceKind| {
        let mut machine = Machine::new()
            .device(5, "port0", DeviceKind::Hardware)
            .device(6, "port1", second)
            .port(5, 2)
            .port(6, 2);
        machine.change(2, |device| device.kind = DeviceKind::Bridge);
        machine
    };
    let far_end = |text: &str| DeviceKind::Tunnel { far_end: text.parse().ok() };
    joins(&over(DeviceKind::Hardware), &[bridge("eth0", "port1")]);
    joins(&over(far_end("203.0.113.9")), &[bridge("eth0", "port1")]);
    joins(&over(far_end("198.18.99.9")), &[]);
    joins(&over(DeviceKind::Tun), &[]);
    joins(&over(DeviceKind::Virtual), &[]);
}

#[test]
fn a_dedicated_bridge_joins_the_port_behind_which_a_gateway_to_elsewhere_sits() {
    let machine = || {
        let mut machine = Machine::new()
            .device(5, "port0", DeviceKind::Virtual)
            .device(6, "port1", DeviceKind::Virtual)
            .port(5, 2)
            .port(6, 2)
            .address(2, "203.0.113.6/30");
        machine.change(2, |device| device.kind = DeviceKind::Bridge);
        machine
    };
    let joined = machine().default_route(2, "203.0.113.5").behind(5, "198.18.10.1");
    joins(&joined.behind(6, "203.0.113.5"), &[bridge("eth0", "port1")]);

    let (near, exit) = ("198.18.10.1", "203.0.113.5");
    let one_wire = machine().default_route(2, exit).behind(5, near).behind(5, exit);
    joins(&one_wire, &[]);
    let not_known = machine().default_route(2, exit).behind(6, exit);
    joins(&not_known, &[]);
    // A container with an address of its own leads nowhere; a default route by the dedicated
    // gateway leads into the dedicated network.
    joins(&machine().behind(5, near).behind(6, "172.17.0.2"), &[]);
    joins(&machine().default_route(2, near).behind(5, near).behind(6, "172.17.0.2"), &[]);
}

#[test]
fn a_proxy_joins_when_it_listens_here_and_leads_elsewhere() {
    let proxy = |port| Joint::Proxy { port };
    joins(&Machine::new().online().listens("0.0.0.0", 3128, None), &[proxy(3128)]);
    joins(&Machine::new().online().listens("::", 1080, None), &[proxy(1080)]);
    joins(&Machine::new().online().listens("198.18.10.10", 8118, Some(2)), &[proxy(8118)]);
    joins(&Machine::new().listens("0.0.0.0", 3128, None), &[]);
    joins(&Machine::new().online().listens("127.0.0.1", 3128, None), &[]);
    joins(&Machine::new().online().listens("192.168.1.7", 3128, None), &[]);
    joins(&Machine::new().online().listens("0.0.0.0", 3128, Some(3)), &[]);
    joins(&Machine::new().online().listens("0.0.0.0", 443, None), &[]);
}

#[test]
fn a_tunnel_to_elsewhere_joins_and_one_within_the_network_does_not() {
    let unknown = DeviceKind::Tunnel { far_end: None };
    let tunnel = |kind| Machine::new().device(7, "wg0", kind).address(7, "10.8.0.2/24");
    let joint = Joint::Tunnel { interface: "wg0".into() };
    joins(&tunnel(unknown), std::slice::from_ref(&joint));
    joins(&tunnel(DeviceKind::Tun), std::slice::from_ref(&joint));
    let outside = DeviceKind::Tunnel { far_end: "203.0.113.9".parse().ok() };
    joins(&tunnel(outside), std::slice::from_ref(&joint));
    let routed = Machine::new().device(7, "wg0", unknown).route(7, "203.0.113.0/24");
    joins(&routed, std::slice::from_ref(&joint));

    joins(&tunnel(unknown).down(7), &[]);
    joins(&tunnel(DeviceKind::Tunnel { far_end: "198.18.99.9".parse().ok() }), &[]);
    // Another leg of the dedicated network; one that carries nothing; a virtual machine's tap.
    let leg = Machine::new().device(7, "wg0", unknown).address(7, "198.18.77.2/24");
    joins(&leg, &[]);
    joins(&Machine::new().device(7, "sit0", unknown), &[]);
    joins(&Machine::new().device(7, "vnet0", DeviceKind::Tun), &[]);
}

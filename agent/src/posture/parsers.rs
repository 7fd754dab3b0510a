//! The parsers of posture evidence by name, for fuzz targets, the tests that replay their corpus,
//! and `hostile`.

use haidang_proto::parsers::Parser;

use super::listeners::Transport;
use super::malformed::Malformed;
use super::{
    account_files, continuity, gvdb, journal_file, kernel_audit, kernel_tables, listeners,
    malformed, malware, netfilter, netlink, pam, routes, rsyslog_conf, sshd_config, sudoers,
    updates,
};

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Parser> {
    OWN.iter().chain(updates::PARSERS).copied()
}

const OWN: &[Parser] = &[
    ("accounts", accounts),
    ("logins", logins),
    ("certificate_file", |bytes| _ = continuity::leaf_end(bytes)),
    ("package_sums", |bytes| _ = continuity::own_files::package_sums(bytes)),
    ("journal_file", |bytes| _ = journal_file::header(bytes)),
    ("audit_netlink", |bytes| _ = kernel_audit::answer(bytes)),
    ("kernel_tables", tables),
    ("configuration_lines", lines),
    ("clamav_and_modules", malware::any_bytes),
    ("gvdb", database),
    ("sshd_config", sshd),
    ("sudoers", |bytes| _ = sudoers::Unguarded::read("main", bytes, &mut again(bytes))),
    ("rsyslog_conf", |bytes| _ = rsyslog_conf::forwards("main", bytes, &mut again(bytes))),
    ("pam", pam_stack),
    ("nfnetlink", firewall),
    ("sock_diag", sockets),
    ("ipv6_routes", |bytes| _ = routes::parse(bytes)),
];

/// Whatever is included is the same file again, under another name each time.
fn again<T: ?Sized>(bytes: &[u8]) -> impl FnMut(&T) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
    let mut turn = 0;
    move |_| {
        turn += 1;
        Ok(vec![(turn.to_string(), bytes.to_vec())])
    }
}

fn accounts(bytes: &[u8]) {
    let _ = account_files::passwd(bytes);
    let _ = account_files::shadow(bytes);
    let _ = account_files::group(bytes);
}

fn logins(bytes: &[u8]) {
    let _ = account_files::lastlog(bytes);
    let _ = account_files::utmp(bytes);
}

fn tables(bytes: &[u8]) {
    let _ = kernel_tables::mounts(bytes);
    let _ = kernel_tables::established_tcp(bytes);
    let _ = kernel_tables::bracketed(bytes);
    let _ = kernel_tables::number(bytes);
}

fn lines(bytes: &[u8]) {
    let _ = malformed::assignments(bytes);
    let _ = malformed::logical_lines(bytes);
}

fn database(bytes: &[u8]) {
    let Ok(table) = gvdb::Table::root(bytes) else { return };
    let _ = table.value("/org/gnome/desktop/session/idle-delay");
    let _ = table.table(".locks").map(|locks| locks.map(|locks| locks.contains("/")));
    let _ = table.schema_default("idle-delay");
}

fn sshd(bytes: &[u8]) {
    let read = sshd_config::Configuration::read("main", bytes, &mut again(bytes));
    let _ = read.map(|read| {
        let _ = read.root_login();
        read.password_alone(sshd_config::SecondFactor::None)
    });
}

fn pam_stack(bytes: &[u8]) {
    let rules = pam::stack::<Malformed>("main", pam::Facility::Auth, &mut |_| Ok(bytes.to_vec()));
    let Ok(rules) = rules else { return };
    let settings = malformed::assignments(bytes).unwrap_or_default();
    let _ = pam::failures_max(&rules, &settings);
    let _ = pam::password_length_min(&rules, &settings);
    let _ = pam::second_factor(&rules);
}

fn firewall(bytes: &[u8]) {
    let most = bytes.len() + 1;
    assert!(netlink::messages(bytes).take(most + 1).count() <= most);
    assert!(netlink::attributes(bytes).take(most + 1).count() <= most);
    let Ok(rules) = netfilter::parse(bytes) else { return };
    let _ = rules.inbound(netfilter::Family::V4);
    let _ = rules.inbound(netfilter::Family::V6);
    let _ = rules.is_empty();
    let _ = rules.reach(netfilter::Family::V4, Transport::Tcp, 22);
    let _ = rules.reach(netfilter::Family::V6, Transport::Udp, 5353);
}

fn sockets(bytes: &[u8]) {
    let _ = listeners::parse(Transport::Tcp, bytes);
    let _ = listeners::parse(Transport::Udp, bytes);
}

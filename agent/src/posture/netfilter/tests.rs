use proptest::prelude::*;

use super::super::listeners::Transport;
use super::*;

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_damage_to_a_real_dump_panics(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = include_bytes!(
            "../../../tests/posture/host_firewall_active/pass/ufw/netfilter.bin"
        ).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(ruleset) = parse(&bytes) {
            let _ = (ruleset.inbound(Family::V4), ruleset.inbound(Family::V6));
            let _ = ruleset.reach(Family::V4, Transport::Tcp, 22);
        }
    }
}

#[test]
fn a_recording_in_which_chains_call_each_other_comes_to_an_end() {
    let mut ruleset = Ruleset::default();
    let key = |name: &str| (FAMILY_INET, "filter".to_owned(), name.to_owned());
    let base = Base { hook: HOOK_INPUT, is_filter: true, drops: false };
    let loops = |to: &str| vec![Effect::Jump(to.into()), Effect::Jump(to.into())];
    ruleset
        .chains
        .insert(key("input"), Chain { base: Some(base), rules: loops("a"), clauses: Vec::new() });
    ruleset.chains.insert(key("a"), Chain { base: None, rules: loops("b"), clauses: Vec::new() });
    ruleset.chains.insert(key("b"), Chain { base: None, rules: loops("a"), clauses: Vec::new() });
    assert_eq!(ruleset.inbound(Family::V4), Inbound::Allowed("inet filter input".into()));
}

#[test]
fn a_process_without_the_capability_is_refused_and_never_told_that_there_are_no_rules() {
    match ask() {
        Ok(_) | Err(Unknown::PermissionDenied { .. } | Unknown::Unreadable { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

use super::*;

/// Written by `dconf compile` 0.40 (Debian 12).
const LOCAL: &[u8] = include_bytes!("local");
/// Written by `glib-compile-schemas` 2.74 (Debian 12) from gsettings-desktop-schemas 43.0.
const SCHEMAS: &[u8] = include_bytes!("gschemas.compiled");

const IDLE: &str = "/org/gnome/desktop/session/idle-delay";

#[test]
fn values_and_locks_of_a_dconf_database_are_read() {
    let root = Table::root(LOCAL).unwrap();
    assert_eq!(root.value(IDLE), Ok(Some(Value::Unsigned(600))));
    let lock = "/org/gnome/desktop/screensaver/lock-enabled";
    assert_eq!(root.value(lock), Ok(Some(Value::Boolean(true))));
    assert_eq!(root.value("/org/gnome/desktop/session/idle"), Ok(None));
    assert_eq!(root.value("idle-delay"), Ok(None));
    let locks = root.table(".locks").unwrap().unwrap();
    assert_eq!(locks.contains(IDLE), Ok(true));
    assert_eq!(locks.contains("/org/gnome/desktop/media-handling/autorun-never"), Ok(false));
}

#[test]
fn defaults_of_a_schema_are_read() {
    let root = Table::root(SCHEMAS).unwrap();
    let session = root.table("org.gnome.desktop.session").unwrap().unwrap();
    assert_eq!(session.schema_default("idle-delay"), Ok(Some(Value::Unsigned(300))));
    let screensaver = root.table("org.gnome.desktop.screensaver").unwrap().unwrap();
    assert_eq!(screensaver.schema_default("lock-enabled"), Ok(Some(Value::Boolean(true))));
}

#[test]
fn a_cut_off_file_never_panics_nor_answers() {
    for end in 0..LOCAL.len() - 1 {
        if let Ok(root) = Table::root(&LOCAL[..end]) {
            let _ = root.value(IDLE);
            let _ = root.table(".locks");
        }
    }
}

#[test]
fn a_file_with_any_bit_turned_never_panics() {
    let mut bytes = LOCAL.to_vec();
    for at in 0..bytes.len() {
        bytes[at] ^= 0xff;
        if let Ok(root) = Table::root(&bytes) {
            let _ = root.value(IDLE);
            let _ = root.table(".locks").map(|locks| locks.map(|locks| locks.contains(IDLE)));
        }
        bytes[at] ^= 0xff;
    }
}

#[test]
fn a_key_that_is_its_own_parent_ends() {
    let mut bytes = LOCAL.to_vec();
    // The item of "idle-delay" has its parent at 0x9c; point it at itself, with an empty key.
    bytes[0x9c..0xa0].copy_from_slice(&3_u32.to_le_bytes());
    bytes[0xa4..0xa6].copy_from_slice(&0_u16.to_le_bytes());
    assert!(Table::root(&bytes).unwrap().value(IDLE).is_err());
}

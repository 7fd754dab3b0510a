use std::os::unix::fs::symlink;

use super::*;

fn root(place: &Path) -> Root {
    Root::open(place).unwrap()
}

#[test]
fn what_is_not_there_is_none_and_required_it_is_unknown() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    assert_eq!(root.text("/etc/none", 10), Ok(None));
    assert_eq!(root.names("/etc"), Ok(None));
    assert_eq!(root.metadata("/etc/none"), Ok(None));
    assert_eq!(root.link("/etc/none"), Ok(None));
    assert_eq!(root.required_text("/etc/none", 10), Err(Unknown::absent("/etc/none")));
}

#[test]
fn a_file_of_exactly_the_limit_is_read_and_a_larger_one_is_not() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "12345").unwrap();
    let root = root(place.path());
    assert_eq!(root.text("/file", 5), Ok(Some("12345".into())));
    let too_large = Unknown::TooLarge { what: "/file".into(), bytes_max: 4 };
    assert_eq!(root.text("/file", 4), Err(too_large));
}

#[test]
fn links_stay_in_the_root_and_are_refused_where_a_user_could_make_them() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("real"), "here").unwrap();
    symlink("/real", place.path().join("absolute")).unwrap();
    symlink("../../../../etc/passwd", place.path().join("escape")).unwrap();
    symlink("loop", place.path().join("loop")).unwrap();
    let root = root(place.path());
    assert_eq!(root.text("/absolute", 100), Ok(Some("here".into())));
    assert_eq!(root.text("/escape", 100_000), Ok(None));
    assert_eq!(root.link("/absolute"), Ok(Some("/real".into())));
    assert_eq!(root.link("/real"), Ok(None));
    assert_eq!(root.link_metadata("/absolute").unwrap().unwrap().kind, Kind::Symlink);
    assert_eq!(root.metadata("/absolute").unwrap().unwrap().bytes, 4);
    for refused in [root.text("/loop", 10), root.without_symlinks().text("/absolute", 10)] {
        assert!(matches!(refused, Err(Unknown::Malformed { .. })), "{refused:?}");
    }
}

#[test]
fn a_fifo_a_directory_and_binary_are_malformed_and_hold_nobody_up() {
    let place = tempfile::tempdir().unwrap();
    let fifo = place.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    std::fs::create_dir(place.path().join("directory")).unwrap();
    std::fs::write(place.path().join("binary"), b"a\0b").unwrap();
    std::fs::write(place.path().join("latin1"), b"caf\xe9").unwrap();
    let root = root(place.path());
    for path in ["/fifo", "/directory", "/binary"] {
        let read = root.text(path, 100);
        assert!(matches!(read, Err(Unknown::Malformed { .. })), "{path}: {read:?}");
    }
    assert_eq!(root.text("/latin1", 100), Ok(Some("caf\u{fffd}".into())));
    assert_eq!(root.bytes("/binary", 3), Ok(Some(b"a\0b".to_vec())));
}

#[test]
fn nothing_is_read_after_the_deadline() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "text").unwrap();
    let root = root(place.path());
    let mut begun = root.stream("/file", 10).unwrap().unwrap();
    root.allow(Duration::ZERO);
    assert_eq!(root.text("/file", 10), Err(Unknown::TimedOut(Duration::ZERO)));
    begun.deadline = root.deadline.get();
    let error = begun.read(&mut [0; 4]).unwrap_err();
    assert_eq!(begun.unknown(&error), Unknown::TimedOut(Duration::ZERO));
}

#[test]
fn names_are_sorted() {
    let place = tempfile::tempdir().unwrap();
    for name in ["b", "a", "c.conf"] {
        std::fs::write(place.path().join(name), "").unwrap();
    }
    let names = ["a", "b", "c.conf"].map(String::from).to_vec();
    assert_eq!(root(place.path()).names("/"), Ok(Some(names)));
}

use super::*;

fn read(files: &[(&str, &str)]) -> Result<Configuration, Malformed> {
    let mut included = |pattern: &str| {
        let stem = pattern.trim_end_matches("*.conf");
        let found = files[1..].iter().filter(|(path, _)| path.starts_with(stem));
        Ok(found.map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
    };
    Configuration::read(files[0].0, files[0].1.as_bytes(), &mut included)
}

#[track_caller]
fn root(text: &str, expected: RootLogin) {
    assert_eq!(read(&[("main", text)]).unwrap().root_login(), Ok(expected), "{text}");
}

#[track_caller]
fn password_alone(text: &str, expected: bool) {
    let configuration = read(&[("main", text)]).unwrap();
    assert_eq!(configuration.password_alone(SecondFactor::None), Ok(expected), "{text}");
}

#[test]
fn the_first_value_wins() {
    root("PermitRootLogin no\nPermitRootLogin yes", RootLogin::No);
    root("permitrootlogin=\"yes\" # why", RootLogin::Yes);
    root("", RootLogin::ProhibitPassword);
    root("#PermitRootLogin no", RootLogin::ProhibitPassword);
}

#[test]
fn a_match_block_counts_at_its_worst() {
    root("PermitRootLogin no\nMatch Address 10.0.0.0/8\n PermitRootLogin yes", RootLogin::Yes);
    root("PermitRootLogin no\nMatch User a\n PasswordAuthentication yes", RootLogin::No);
    root("PermitRootLogin yes\nMatch all\n PermitRootLogin no", RootLogin::Yes);
}

#[test]
fn a_match_ends_with_the_included_file() {
    let files = [
        ("main", "Include /etc/ssh/d/*.conf\nPermitRootLogin no"),
        ("/etc/ssh/d/a.conf", "Match User x\nPermitRootLogin no"),
    ];
    assert_eq!(read(&files).unwrap().root_login(), Ok(RootLogin::No));
    let before = [
        ("main", "Include d/*.conf\nPermitRootLogin no"),
        ("/etc/ssh/d/a.conf", "PermitRootLogin yes"),
    ];
    assert_eq!(read(&before).unwrap().root_login(), Ok(RootLogin::Yes));
}

#[test]
fn methods_and_passwords_are_judged_together() {
    password_alone("", true);
    password_alone("PasswordAuthentication no\nKbdInteractiveAuthentication no", false);
    password_alone("PasswordAuthentication no\nUsePAM yes", true);
    password_alone(
        "PasswordAuthentication no\nUsePAM yes\nChallengeResponseAuthentication no",
        false,
    );
    password_alone("AuthenticationMethods publickey,password", false);
    password_alone("AuthenticationMethods publickey password", true);
    password_alone("UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive:pam", false);
    let both = "PasswordAuthentication no\nMatch User x\nPasswordAuthentication yes\nAuthenticationMethods publickey,password";
    password_alone(both, false);
    let pair = "PasswordAuthentication no\nAuthenticationMethods publickey\nMatch User x\nPasswordAuthentication yes\nMatch Address 10.0.0.0/8\nAuthenticationMethods any";
    password_alone(pair, true);
}

#[test]
fn a_second_factor_of_pam_needs_pam() {
    let with = read(&[("main", "UsePAM yes")]).unwrap();
    assert_eq!(with.password_alone(SecondFactor::Demanded), Ok(false));
    let without = read(&[("main", "UsePAM no")]).unwrap();
    assert_eq!(without.password_alone(SecondFactor::Demanded), Ok(true));
}

#[test]
fn what_sshd_would_refuse_is_refused() {
    assert!(read(&[("main", "PermitRotLogin no")]).is_err());
    assert!(read(&[("main", "PermitRootLogin")]).is_err());
    assert!(read(&[("main", "Port ssh")]).is_err());
    assert!(read(&[("main", "Banner \"open")]).is_err());
    assert!(read(&[("main", "PermitRootLogin perhaps")]).unwrap().root_login().is_err());
    assert!(read(&[("main", "\0")]).is_err());
}

#[test]
fn a_loop_of_inclusions_ends() {
    let files = [
        ("main", "Include /a.conf"),
        ("/a.conf", "Include /b.conf"),
        ("/b.conf", "Include /a.conf"),
    ];
    assert!(read(&files).is_err());
}

#[test]
fn ports_add_up() {
    assert_eq!(read(&[("main", "Port 22\nPort 2222")]).unwrap().ports(), [22, 2222]);
    assert_eq!(read(&[("main", "")]).unwrap().ports(), [22]);
}

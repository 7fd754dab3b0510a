//! Network namespaces of one run: made, entered and removed.
//!
//! Names begin with `hd<pid>`, so that two runs never meet and a run that was killed is
//! recognised by its dead process and swept by the next. Everything below needs root.
//! Sockets stay in the namespace in which they were opened, whichever thread uses them
//! later: [`Netns::inside`] opens them, and the ordinary runtime of the caller drives them.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// Where iproute2 keeps its named namespaces.
const NETNS_DIR: &str = "/run/netns";
/// What every name of ours begins with, before the process id.
const PREFIX: &str = "hd";
/// What the name of every directory of ours begins with, before the process id.
const DIRECTORY_PREFIX: &str = "haidang-lab-";
/// Set by a program that ends in order when it is interrupted.
static ENDS_IN_ORDER: AtomicBool = AtomicBool::new(false);
/// A connection inside one machine either comes at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One namespace, removed when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

/// A prefix for the names of one laboratory, unique on this machine.
pub fn unique_prefix() -> String {
    static LABORATORIES: AtomicU32 = AtomicU32::new(0);
    let number = LABORATORIES.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}x{number}", std::process::id())
}

impl Netns {
    /// Makes a namespace with loopback up, IPv6 off, reverse-path filters off (the detour over
    /// the Internet is asymmetric on purpose) and echo allowed to every group.
    ///
    /// # Errors
    /// Without root, or without namespaces in the kernel.
    pub fn create(name: String) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self { name };
        netns.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        netns.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        netns.set_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        netns.set_sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        netns.set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Switches IPv6 on. Addresses outlive a switched-off device, as those of IPv4 do: the devices
    /// that are switched off in a laboratory stand for cables.
    ///
    /// # Errors
    /// When the kernel has no IPv6.
    pub fn speak_v6(&self) -> Result<()> {
        for set in ["all", "default"] {
            self.set_sysctl(&format!("net/ipv6/conf/{set}/disable_ipv6"), "0")?;
            self.set_sysctl(&format!("net/ipv6/conf/{set}/accept_dad"), "0")?;
            self.set_sysctl(&format!("net/ipv6/conf/{set}/keep_addr_on_down"), "1")?;
        }
        Ok(())
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs work on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = PathBuf::from(NETNS_DIR).join(&self.name);
        let file = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter {}", path.display()))?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A program to be started inside the namespace. `ip` replaces itself by it, so that its
    /// process id is the program's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs lines of `ip`, without the word `ip`, inside the namespace.
    ///
    /// # Errors
    /// The first line that fails, in the words of `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// The same for lines that do not say by an address that they are about IPv6.
    ///
    /// # Errors
    /// The first line that fails, in the words of `ip`.
    pub fn ip6(&self, lines: &str) -> Result<()> {
        feed(Command::new("ip").args(["-6", "-n", &self.name, "-batch", "-"]), lines)
    }

    /// Loads a ruleset of nftables inside the namespace.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        feed(self.command("nft").args(["-f", "-"]), ruleset)
    }

    /// Writes one setting below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel has no such setting or refuses the value.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(key);
        self.inside(|| fs::write(&path, value))?
            .with_context(|| format!("write {value} to {} in {}", path.display(), self.name))
    }

    /// Opens a TCP connection from inside.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT))?
            .with_context(|| format!("connect to {address} in {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next run's sweep is the second chance.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Says in a sentence why a laboratory cannot be built here, if so, removes what a killed run
/// left behind, and makes this process remove its own namespaces when it is interrupted.
///
/// # Errors
/// Without root or without the programs the laboratory needs.
pub fn prepare() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the network laboratory makes namespaces, which needs root: run it as root");
    }
    for program in ["ip", "nft", "setpriv"] {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            bail!(
                "the network laboratory needs the program {program}: \
                 apt-get install iproute2 nftables util-linux"
            );
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        sweep(|pid| !PathBuf::from("/proc").join(pid.to_string()).exists());
        if !ENDS_IN_ORDER.load(Ordering::Relaxed) {
            thread::spawn(remove_on_signal);
        }
    });
    Ok(())
}

/// Promises that this process drops its laboratories when it is interrupted, as a program with a
/// main of its own can; a test cannot.
pub fn ends_in_order() {
    ENDS_IN_ORDER.store(true, Ordering::Relaxed);
}

/// A directory for one laboratory, which other users may enter.
///
/// # Errors
/// When it cannot be made.
pub fn directory() -> Result<TempDir> {
    let prefix = format!("{DIRECTORY_PREFIX}{}x", std::process::id());
    let directory =
        tempfile::Builder::new().prefix(&prefix).tempdir().context("make a directory")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
        .context("open the directory to other users")?;
    Ok(directory)
}

/// Waits for Ctrl-C or a request to end, removes what this process made and ends it. Programs
/// started inside carry a parent-death signal, so they end with this process.
fn remove_on_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(crate::interrupted());
    sweep(|pid| pid == std::process::id());
    std::process::exit(130);
}

/// Removes the namespaces and directories whose maker's process id is condemned.
fn sweep(condemned: impl Fn(u32) -> bool) {
    for name in made_by(NETNS_DIR.as_ref(), PREFIX, &condemned) {
        drop(Netns { name });
    }
    let directory = std::env::temp_dir();
    for name in made_by(&directory, DIRECTORY_PREFIX, &condemned) {
        let _ = fs::remove_dir_all(directory.join(name));
    }
}

/// Names in a directory that are ours, of a maker that is condemned.
fn made_by(directory: &Path, prefix: &str, condemned: impl Fn(u32) -> bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = names.filter(|name| {
        let maker = name.strip_prefix(prefix).and_then(|rest| rest.split_once('x'));
        maker.and_then(|(pid, _)| pid.parse().ok()).is_some_and(&condemned)
    });
    ours.collect()
}

/// Runs a command to its end; an error carries what it wrote to stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The same, with text on its standard input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(input.as_bytes()).with_context(|| format!("write to {shown}"))?;
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {} in\n{input}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

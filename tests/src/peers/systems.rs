//! The two systems and the programs that judge them: what is installed, fetched, built and
//! started for a comparison. All of it comes from the archive that this machine's apt uses.
//!
//! What is expensive is kept in `$XDG_CACHE_HOME/haidang/peers` (`~/.cache` by default): the
//! newest `ssg-debian`, unpacked, because Debian 12's own knows no Debian 12, and a Debian made by
//! debootstrap. The Debian is brought up to date and copied for each run, so that none sees what
//! another left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::{self, Netns};
use crate::program::Program;
use crate::wait;

use super::usage::{self, Usage};

/// Programs that this machine needs, with their packages.
const PROGRAMS: [(&str, &str); 4] = [
    ("lynis", "lynis"),
    ("oscap", "openscap-scanner"),
    ("systemd-nspawn", "systemd-container"),
    ("debootstrap", "debootstrap"),
];

/// What the Debian holds beyond the smallest one. `linux-base` is there because 147 rules of the
/// guide apply only where it is installed.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,iproute2,adduser,procps,kmod,\
    ca-certificates,openssh-server,auditd,ufw,rsyslog,chrony,unattended-upgrades,linux-base,\
    libpam-pwquality,apparmor,cron,sudo,lynis,openscap-scanner";

/// The release that is judged, on both systems: the guide has one datastream for each.
const RELEASE: &str = "bookworm";
const RELEASE_ID: &str = "VERSION_ID=\"12\"";

/// Where the newest guide is: its package runs nowhere and is only unpacked.
const GUIDE_SUITE: &str = "sid";

/// Below the unpacked guide.
const DATASTREAM: &str = "usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml";

/// systemd starts in a second or two; a busy machine may take a hundred times as long.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// What this machine's apt knows of Debian's own archive.
#[derive(Debug)]
pub struct Archive {
    /// Address and suite of each source of the component main.
    sources: BTreeSet<(String, String)>,
    cache: PathBuf,
}

impl Archive {
    /// Asks apt, and installs what is missing.
    ///
    /// # Errors
    /// Without root, on another system than Debian 12, or when packages cannot be had.
    pub fn prepare() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "peers need root: run it as root");
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        ensure!(
            release.contains(RELEASE_ID),
            "the comparison is made on Debian 12, whose rules the guide's datastream holds"
        );
        let output = captured(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(ORIGIN) $(COMPONENT)",
            "Created-By: Packages",
        ]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sources: BTreeSet<_> = text
            .lines()
            .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                [address, suite, "Debian", "main"] => Some((address.into(), suite.into())),
                _ => None,
            })
            .collect();
        let archive = Self { sources, cache: cache()? };
        archive.address(RELEASE)?;
        let is_missing = |program: &str| {
            ["/usr/bin", "/usr/sbin"].iter().all(|path| !Path::new(path).join(program).exists())
        };
        let missing: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| is_missing(program))
            .map(|(_, package)| *package)
            .collect();
        if !missing.is_empty() {
            let mut install = Command::new("apt-get");
            install.env("DEBIAN_FRONTEND", "noninteractive");
            install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing);
            captured(&mut install)?;
        }
        Ok(archive)
    }

    fn address(&self, suite: &str) -> Result<&str> {
        let source = self.sources.iter().find(|(_, of)| of == suite);
        let (address, _) = source.with_context(|| {
            format!("apt has no source of Debian {suite}, component main: add one, apt-get update")
        })?;
        Ok(address)
    }

    /// The newest datastream for Debian 12 and the version of its package.
    ///
    /// # Errors
    /// When the package cannot be had or has none.
    pub fn datastream(&self) -> Result<(PathBuf, String)> {
        let place = self.cache.join("guide");
        fs::create_dir_all(place.join("lists/partial"))
            .with_context(|| format!("make {}", place.display()))?;
        let list = place.join("sources.list");
        let source = format!("deb {} {GUIDE_SUITE} main\n", self.address(RELEASE)?);
        fs::write(&list, source).with_context(|| format!("write {}", list.display()))?;
        let apt = |arguments: &[&str]| {
            let option = |name: &str, value: &Path| format!("{name}={}", value.display());
            let mut apt = Command::new("apt-get");
            apt.current_dir(&place)
                .args(["-qq", "-o", &option("Dir::Etc::SourceList", &list)])
                .args(["-o", "Dir::Etc::SourceParts=/dev/null"])
                .args(["-o", "APT::Sandbox::User=root"])
                .args(["-o", &option("Dir::State::Lists", &place.join("lists"))])
                .args(["-o", &option("Dir::Cache", &place.join("cache"))])
                .args(arguments);
            captured(&mut apt)
        };
        apt(&["update"])?;
        apt(&["download", "ssg-debian"])?;
        let names = fs::read_dir(&place).context("list the cache")?.flatten();
        let mut packages: Vec<PathBuf> = names
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "deb"))
            .collect();
        packages.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
        let package = packages.last().context("apt downloaded no ssg-debian")?;
        let unpacked = place.join("unpacked");
        captured(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
        let version = captured(Command::new("dpkg-deb").arg("-f").arg(package).arg("Version"))?;
        let datastream = unpacked.join(DATASTREAM);
        ensure!(datastream.is_file(), "{} is not in ssg-debian", datastream.display());
        Ok((datastream, String::from_utf8_lossy(&version.stdout).trim().to_owned()))
    }

    /// A fresh copy of the Debian, up to date, in `directory`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn debian(&self, directory: &Path) -> Result<PathBuf> {
        let kept = self.cache.join(RELEASE);
        if !kept.exists() {
            let growing = self.cache.join(format!("{RELEASE}.growing"));
            if growing.exists() {
                fs::remove_dir_all(&growing)
                    .with_context(|| format!("remove {}", growing.display()))?;
            }
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]);
            captured(debootstrap.arg(&growing).arg(self.address(RELEASE)?))?;
            fs::rename(&growing, &kept).context("keep the new Debian")?;
        }
        let sources: String = self
            .sources
            .iter()
            .filter(|(_, suite)| suite.starts_with(RELEASE))
            .map(|(address, suite)| format!("deb {address} {suite} main\n"))
            .collect();
        let list = kept.join("etc/apt/sources.list");
        fs::write(&list, sources).with_context(|| format!("write {}", list.display()))?;
        fs::copy("/etc/resolv.conf", kept.join("etc/resolv.conf")).context("copy resolv.conf")?;
        for step in [&["-qq", "update"][..], &["-y", "-qq", "dist-upgrade"]] {
            let mut apt = Command::new("chroot");
            apt.env("DEBIAN_FRONTEND", "noninteractive").arg(&kept).arg("apt-get").args(step);
            captured(&mut apt)?;
        }
        let tree = directory.join("debian");
        captured(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&kept).arg(&tree))?;
        Ok(tree)
    }
}

/// Where commands are run and judged.
#[derive(Debug)]
pub enum Place {
    /// This machine.
    Here,
    /// Inside a container.
    Container(Container),
}

impl Place {
    /// Runs a command there, in `directory`, which has the same path in both.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, command: &[&str], directory: &Path) -> Result<(Output, Usage)> {
        match self {
            Self::Here => usage::run(command, directory),
            Self::Container(container) => {
                let leader = container.leader.to_string();
                let enter = ["nsenter", "-t", &leader, "-m", "-u", "-i", "-n", "-p", "--"];
                usage::run(&[&enter[..], command].concat(), directory)
            }
        }
    }
}

/// The Debian, running with systemd as its init.
#[derive(Debug)]
pub struct Container {
    leader: u32,
    _nspawn: Program,
    _netns: Netns,
}

impl Container {
    /// Starts it with a network of its own that leads nowhere, and the files of `shown` at the
    /// same paths or at the second ones, and waits until every unit has settled.
    ///
    /// # Errors
    /// When it does not start in time.
    pub async fn start(tree: &Path, directory: &Path, shown: &[(&Path, &Path)]) -> Result<Self> {
        let netns = Netns::create(format!("{}peers", netns::unique_prefix()))?;
        // An address, as any machine has: without one OpenSCAP cannot tell what system it is on.
        netns.set_sysctl("net/ipv6/conf/all/disable_ipv6", "0")?;
        netns.set_sysctl("net/ipv6/conf/default/disable_ipv6", "0")?;
        netns.ip("link add eth0 type veth peer name uplink0\naddr add 10.99.0.2/24 dev eth0\n\
             link set uplink0 up\nlink set eth0 up")?;
        let mut nspawn = Command::new("setpriv");
        nspawn.args(["--pdeathsig", "KILL", "systemd-nspawn", "--register=no", "--keep-unit"]);
        nspawn.args(["--console=pipe", "--boot", "--directory"]).arg(tree);
        // What a machine gives to its services and a container does not: its own packet filter, and
        // a look at the clock.
        nspawn.arg("--capability=CAP_NET_ADMIN,CAP_AUDIT_CONTROL");
        nspawn.arg("--system-call-filter=adjtimex clock_adjtime");
        nspawn.arg(format!("--network-namespace-path=/run/netns/{}", netns.name()));
        nspawn.arg(format!("--bind={}", directory.display()));
        for (from, to) in shown {
            nspawn.arg(format!("--bind-ro={}:{}", from.display(), to.display()));
        }
        let program = Program::start("nspawn", &mut nspawn, directory)?;
        let pid = program.pid();
        let ((leader, _), _) = wait::until("the Debian's start", BOOT_DEADLINE, || {
            std::future::ready(settled(pid).map_err(|error| format!("{error:#}")))
        })
        .await
        .with_context(|| program.last_lines())?;
        Ok(Self { leader, _nspawn: program, _netns: netns })
    }
}

impl Drop for Container {
    /// Whoever kills systemd-nspawn leaves the container's init alive; with the init all end.
    fn drop(&mut self) {
        if let Some(init) = i32::try_from(self.leader).ok().and_then(Pid::from_raw) {
            let _ = kill_process(init, Signal::KILL);
        }
    }
}

/// The init of the container and what it says of its units.
fn settled(nspawn: u32) -> Result<(u32, String)> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"));
    let children = children.context("systemd-nspawn has ended")?;
    let leader = children.split(' ').find_map(|pid| pid.parse::<u32>().ok());
    let leader = leader.context("systemd-nspawn has no child yet")?;
    let state = Command::new("nsenter")
        .args(["-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "--"])
        .args(["systemctl", "is-system-running"])
        .output()
        .context("start nsenter")?;
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    match state.as_str() {
        "running" | "degraded" => Ok((leader, state)),
        _ => bail!("systemd says {state:?}"),
    }
}

fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => {
            let home = std::env::var_os("HOME").context("HOME or XDG_CACHE_HOME has to be set")?;
            PathBuf::from(home).join(".cache")
        }
    };
    let cache = base.join("haidang/peers");
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    Ok(cache)
}

/// Runs a command to its end; an error carries what it wrote to stderr.
fn captured(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {shown}"))?;
    ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}

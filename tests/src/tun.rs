//! A TUN device: the kernel's side of the relay. One ioctl, made here rather than with a crate
//! for every platform's tunnels, of which this would be the only call.
//!
//! Source: Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h of Linux.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::io::Result as IoResult;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// IFNAMSIZ, with its final zero.
const NAME_BYTES: usize = 16;
/// IFF_TUN: packets of layer 3.
const IFF_TUN: u16 = 0x0001;
/// IFF_NO_PI: no header before each packet.
const IFF_NO_PI: u16 = 0x1000;

/// Makes a TUN device in the namespace of the calling thread. Its end is the returned
/// non-blocking descriptor; the device lives as long as that does.
///
/// # Errors
/// Without `/dev/net/tun` or without the right to make one.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    ensure!(name.len() < NAME_BYTES, "the device name {name} is longer than 15 bytes");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")
        .context("open /dev/net/tun")?;
    let mut request =
        SetInterface { name: [0; NAME_BYTES], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    set_interface(&file, request).with_context(|| format!("make the TUN device {name}"))?;
    Ok(file.into())
}

/// `struct ifreq` as TUNSETIFF reads it: 40 bytes on 64-bit Linux.
#[repr(C)]
struct SetInterface {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

#[expect(unsafe_code, reason = "a TUN device is made by an ioctl and by nothing else")]
fn set_interface(device: &impl AsFd, request: SetInterface) -> IoResult<()> {
    // SAFETY: the implementation below describes TUNSETIFF as the kernel defines it.
    unsafe { ioctl(device, request) }
}

#[expect(unsafe_code, reason = "describes the one ioctl above")]
// SAFETY: TUNSETIFF is _IOW('T', 202, int) but reads and writes a `struct ifreq`, whose layout
// `SetInterface` has; the pointer is valid for the whole call.
unsafe impl Ioctl for SetInterface {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::write::<i32>(b'T', 202)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> IoResult<Self::Output> {
        Ok(())
    }
}

//! Writes this network namespace's raw nftables dumps to standard output: how the fixtures of the
//! firewall check are captured. Needs CAP_NET_ADMIN.
//!
//! `unshare -n sh -c 'nft -f rules.nft; record-netfilter > netfilter.bin'`

use std::io::Write;

fn main() -> anyhow::Result<()> {
    let bytes = haidang_agent::posture::netfilter::record()?;
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

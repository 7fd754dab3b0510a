//! The collector's TLS as sslyze finds it: `haidang-scan` does the same and records it. Needs no
//! root.

use haidang_tests::tls_scan::scan_all;

#[tokio::test(flavor = "multi_thread")]
async fn no_listener_speaks_worse_tls_than_is_promised() {
    let all = scan_all().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(all.len(), 4);
    for (listener, findings) in all {
        assert_eq!(findings.len(), 13, "{findings:?}");
        for finding in findings {
            assert!(finding.is_promised, "{}: {finding:?}", listener.name);
        }
    }
}

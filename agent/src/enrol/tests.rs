use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::identity::tests::{AGENT, Authority};
use crate::uplink::double::{Double, Serves, Shared, state};

const COLLECTOR: &str = "spiffe://hanoi.example/collector";

struct Scene {
    place: tempfile::TempDir,
    authority: Arc<Authority>,
    state: Shared,
    double: Double,
}

async fn scene(id: &str) -> Scene {
    let authority = Arc::new(Authority::new());
    let state = state(&authority);
    let double = Double::start(Serves::Enrolment, &state, id).await;
    Scene { place: tempfile::tempdir().unwrap(), authority, state, double }
}

impl Scene {
    fn store(&self) -> Store {
        Store::new(&self.place.path().join("state"))
    }

    fn code(&self) -> EnrolmentCode {
        EnrolmentCode {
            token_id: "t1".into(),
            secret: Zeroizing::new([9; 32]),
            ca_pin: self.authority.pin(),
            endpoint: self.double.address.to_string(),
        }
    }

    async fn enrol(&self, code: &EnrolmentCode, replace: Replace) -> Result<Identity, EnrolError> {
        let instance = self.store().instance().unwrap();
        let machine_id = b"machine".to_vec();
        let machine = Machine { instance, machine_id, hostname: "pc-01".into() };
        enrol(code, machine, &self.store(), replace, None).await
    }

    #[track_caller]
    fn nothing_was_written(&self) {
        assert_eq!(std::fs::read_dir(self.place.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_code_becomes_an_identity_once() {
    let scene = scene(COLLECTOR).await;
    let identity = scene.enrol(&scene.code(), Replace::No).await.unwrap();
    assert_eq!(identity.agency.as_str(), "01-018");
    let sent = scene.state.lock().unwrap().enrolments.remove(0);
    assert_eq!((sent.token_id.as_str(), sent.token_secret), ("t1", vec![9; 32]));
    let fingerprint = scene.store().instance().unwrap().fingerprint(b"machine").to_vec();
    assert_eq!((sent.hostname.as_str(), sent.machine_fingerprint), ("pc-01", fingerprint));
    let loaded = scene.store().load().unwrap().unwrap();
    assert_eq!(loaded.contacts.report_endpoints, ["127.0.0.1:7443".parse().unwrap()]);
    let again = scene.enrol(&scene.code(), Replace::No).await.unwrap_err();
    assert!(again.to_string().contains("--replace"), "{again}");
    assert!(scene.state.lock().unwrap().enrolments.is_empty(), "no use was spent");
    scene.enrol(&scene.code(), Replace::Yes).await.unwrap();
}

#[tokio::test]
async fn every_refusal_is_one_clear_sentence_and_writes_nothing() {
    let scene = scene(COLLECTOR).await;
    for refusal in Refusal::ALL {
        scene.state.lock().unwrap().refusal = Some(*refusal);
        let error = scene.enrol(&scene.code(), Replace::No).await.unwrap_err();
        assert_eq!(error.to_string(), sentence(*refusal));
        scene.nothing_was_written();
    }
    assert!(sentence(Refusal::TokenExpired).contains("expired"));
    assert!(sentence(Refusal::TokenUsedUp).contains("used"));
}

#[tokio::test]
async fn an_impostor_gets_no_secret() {
    let own = scene(COLLECTOR).await;
    let agent = scene(AGENT).await;
    let mut foreign_pin = own.code();
    foreign_pin.ca_pin = [1; 32];
    for (scene, code) in [(&own, foreign_pin), (&agent, agent.code())] {
        let error = scene.enrol(&code, Replace::No).await.unwrap_err();
        assert!(matches!(error, EnrolError::NotTheCollector { .. }), "{error:?}");
        assert!(scene.state.lock().unwrap().enrolments.is_empty());
        scene.nothing_was_written();
    }
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_not_kept() {
    let scene = scene(COLLECTOR).await;
    let other = Authority::new();
    let request = Key::generate().unwrap().request().unwrap();
    let for_another_key = scene.authority.sign(&request, AGENT).to_vec();
    let by_another_authority = other.sign(&request, AGENT).to_vec();
    for chain in [
        vec![for_another_key],
        vec![by_another_authority],
        vec![b"no certificate".to_vec()],
        Vec::new(),
    ] {
        scene.state.lock().unwrap().foreign_chain = Some(chain);
        assert!(scene.enrol(&scene.code(), Replace::No).await.is_err());
        scene.nothing_was_written();
    }
    scene.state.lock().unwrap().foreign_chain = None;
    scene.state.lock().unwrap().agent = COLLECTOR.into();
    assert!(scene.enrol(&scene.code(), Replace::No).await.is_err());
    scene.state.lock().unwrap().agent = AGENT.into();
    scene.state.lock().unwrap().endpoint = "collector.example:7443".into();
    let error = scene.enrol(&scene.code(), Replace::No).await.unwrap_err();
    assert!(error.to_string().contains("[advertise]"), "{error}");
    scene.nothing_was_written();
}

#[tokio::test]
async fn a_listener_that_is_not_there_is_said_in_words() {
    let scene = scene(COLLECTOR).await;
    let mut code = scene.code();
    code.endpoint = "127.0.0.1:1".into();
    let error = scene.enrol(&code, Replace::No).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach the collector at 127.0.0.1:1"), "{error}");
    scene.nothing_was_written();
}

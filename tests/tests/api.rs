//! The JSON API against its own OpenAPI document: every answer of a real collector, errors
//! included, validates against the schema that the document names for it. Needs no root.

use haidang_tests::loopback::Loopback;
use haidang_tests::web::{Answer, Endpoint};
use http::{StatusCode, header};
use serde_json::{Value, json};

const AGENCY: &str = "01-018";

/// The collector's document.
async fn document(web: &Endpoint) -> Value {
    web.json("/api/v1/openapi.json").await.expect("the document")
}

/// The schema of an answer: a reference into the document, beside its components.
fn schema(document: &Value, template: &str, answer: &Answer) -> Value {
    let responses = &document["paths"][template]["get"]["responses"];
    let mut response = &responses[answer.status.as_str()];
    if let Some(reference) = response["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').expect("a reference inside the document");
        response = document.pointer(pointer).expect("the reference leads somewhere");
    }
    let media_type = answer.headers[header::CONTENT_TYPE].to_str().expect("text");
    let media_type = media_type.split(';').next().unwrap_or_default();
    let schema = &response["content"][media_type]["schema"];
    assert!(schema.is_object(), "{template} {} {media_type} is not documented", answer.status);
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    schema
}

#[track_caller]
fn validates(document: &Value, template: &str, answer: &Answer) {
    let schema = schema(document, template, answer);
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let instance: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
    let errors: Vec<_> = validator.iter_errors(&instance).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{template} {}: {errors:#?} in {instance:#}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let _agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|error| panic!("{error:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let web = &world.collector.web;
    let document = document(web).await;
    let collector = &world.collector;
    let add = ["exception", "add", "--agency", AGENCY, "--check", "screen_lock"];
    let words = ["--owner", "Phòng CNTT", "--reason", "màn hình công cộng", "--expires", "90d"];
    let added = collector.run(&[&add[..], &words[..]].concat()).expect("it runs");
    assert!(added.status.success(), "{added:?}");
    let agents = web.json("/api/v1/agents").await.expect("it answers");
    let its_posture =
        format!("/api/v1/agents/{}/posture", agents["items"][0]["id"].as_str().expect("an id"));
    let asked = [
        ("/api/v1/agencies", "/api/v1/agencies", StatusCode::OK),
        ("/api/v1/agencies", "/api/v1/agencies?state=connected&limit=1000", StatusCode::OK),
        ("/api/v1/agencies", "/api/v1/agencies?limit=0", StatusCode::BAD_REQUEST),
        ("/api/v1/agencies", "/api/v1/agencies?state=green", StatusCode::BAD_REQUEST),
        ("/api/v1/agencies/{id}", "/api/v1/agencies/01-018", StatusCode::OK),
        ("/api/v1/agencies/{id}", "/api/v1/agencies/01-999", StatusCode::NOT_FOUND),
        ("/api/v1/agencies/{id}/agents", "/api/v1/agencies/01-018/agents", StatusCode::OK),
        ("/api/v1/agencies/{id}/outages", "/api/v1/agencies/01-018/outages", StatusCode::OK),
        (
            "/api/v1/agencies/{id}/outages",
            "/api/v1/agencies/01-018/outages?cursor=x",
            StatusCode::BAD_REQUEST,
        ),
        ("/api/v1/agencies/{id}/outages", "/api/v1/agencies/01-999/outages", StatusCode::NOT_FOUND),
        ("/api/v1/agencies/{id}/posture", "/api/v1/agencies/01-018/posture", StatusCode::OK),
        ("/api/v1/agencies/{id}/posture", "/api/v1/agencies/01-999/posture", StatusCode::NOT_FOUND),
        ("/api/v1/agents", "/api/v1/agents", StatusCode::OK),
        ("/api/v1/agents/{id}/posture", &its_posture, StatusCode::OK),
        ("/api/v1/agents/{id}/posture", "/api/v1/agents/nobody/posture", StatusCode::NOT_FOUND),
        ("/api/v1/transitions", "/api/v1/transitions", StatusCode::OK),
        ("/api/v1/goals", "/api/v1/goals", StatusCode::OK),
        ("/readyz", "/readyz", StatusCode::OK),
    ];
    for (template, path, status) in asked {
        let answer = web.get(path).await.unwrap_or_else(|error| panic!("{path}: {error:#}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        validates(&document, template, &answer);
    }
    let agency = web.json("/api/v1/agencies/01-018").await.expect("it answers");
    assert_eq!(agency["state"], "connected");
    let posture = web.json("/api/v1/agencies/01-018/posture").await.expect("it answers");
    assert_eq!(posture["exceptions"][0]["owner"], "Phòng CNTT");
    let foreign = web.get_with("/api/v1/agencies", &[("host", "evil.example")]).await;
    let foreign = foreign.expect("it answers");
    assert_eq!(foreign.status, StatusCode::MISDIRECTED_REQUEST);
    validates(&document, "/api/v1/agencies", &foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_to_the_end_of_the_roster() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let mut ids = std::collections::BTreeSet::new();
    let mut path = "/api/v1/agencies?limit=250".to_owned();
    loop {
        let page = world.collector.web.json(&path).await.expect("a page");
        let items = page["items"].as_array().expect("items").iter();
        ids.extend(items.map(|agency| agency["id"].as_str().expect("an id").to_owned()));
        match &page["next_cursor"] {
            Value::String(cursor) => path = format!("/api/v1/agencies?limit=250&cursor={cursor}"),
            end => {
                assert_eq!(end, &json!(null));
                break;
            }
        }
    }
    assert_eq!(ids.len(), 631);
}

//! Generated from `proto/haidang/v1/haidang.proto`, which documents every field.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code"
)]

tonic::include_proto!("haidang.v1");

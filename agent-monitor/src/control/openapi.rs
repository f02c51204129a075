//! The description of the control socket, OpenAPI 3.1, made of the types and paths that serve it.

use std::sync::LazyLock;

use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::routes::paths;

/// The description as text.
pub static TEXT: LazyLock<String> = LazyLock::new(|| {
    let text = Description::openapi().to_pretty_json();
    text.expect("the description is made of strings and numbers") + "\n"
});

#[derive(OpenApi)]
#[openapi(
    info(
        title = "agent-monitor, control socket",
        description = "HTTP and JSON over the unix socket of the daemon. Root may ask for everything, members of the group \
                       `control_group` may read. Not a frozen format: it goes with the version of the daemon.",
    ),
    paths(
        paths::description,
        paths::status,
        paths::agents,
        paths::agent,
        paths::create_agent,
        paths::end_agent,
        paths::policies,
        paths::policy,
        paths::apply_policy,
        paths::delete_policy,
        paths::events,
    ),
    components(schemas(super::api::Problem)),
    servers((url = "/", description = "The unix socket that the setting `socket` names")),
    modifiers(&Refusals),
)]
struct Description;

/// Refusals that many paths share, by what a request has.
struct Refusals;

/// Of every path.
const ALL: [(&str, &str); 4] = [
    ("403", "This peer may not ask for it"),
    ("500", "The daemon could not do it"),
    ("503", "The daemon is starting or stopping, or has too many clients"),
    ("504", "The daemon did not answer in time"),
];
/// Where a part of the path names something.
const NAMED: [(&str, &str); 2] = [("400", "The name is not UTF-8"), ("404", "There is none of this name")];
/// Where there is a body.
const WITH_BODY: [(&str, &str); 7] = [
    ("400", "The body or the name is malformed"),
    ("408", "The body did not come in time"),
    ("409", "What exists stands against it"),
    ("411", "The body has no length"),
    ("413", "The body is too large"),
    ("415", "The body is not `application/json`"),
    ("422", "It is understood, and refused"),
];

impl Modify for Refusals {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        for item in description.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
            operations.into_iter().flatten().for_each(add);
        }
    }
}

fn add(operation: &mut Operation) {
    let parameters = operation.parameters.iter().flatten();
    let is_named = parameters.into_iter().any(|parameter| parameter.parameter_in == ParameterIn::Path);
    let with_body = operation.request_body.is_some();
    let named = NAMED.iter().filter(|_| is_named);
    let bodied = WITH_BODY.iter().filter(|_| with_body);
    for (status, why) in ALL.iter().chain(bodied).chain(named) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*why).content("application/json", content).build();
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| response.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_docs_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, TEXT.as_str()).expect("docs can be written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == *TEXT, "docs/openapi.json is old: run UPDATE_DOCS=1 cargo test -p agent-monitor openapi");
    }

    #[test]
    fn every_operation_says_what_it_gives_and_refuses_with_a_problem() {
        let description: serde_json::Value = serde_json::from_str(&TEXT).expect("is JSON");
        assert_eq!(description["openapi"], "3.1.0");
        let paths = description["paths"].as_object().expect("has paths");
        let operations = paths.values().flat_map(|path| path.as_object().into_iter().flatten());
        let mut count = 0;
        for (method, operation) in operations {
            count += 1;
            let responses = operation["responses"].as_object().expect("has responses");
            assert!(responses.contains_key("200") && responses.contains_key("403"), "{method} {operation}");
            for (_, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{operation}");
            }
        }
        assert_eq!(count, 11);
        // What the daemon refuses is not described as possible.
        let body = &description["components"]["schemas"]["CreateAgent"];
        assert_eq!((&body["additionalProperties"], &body["required"]), (&false.into(), &serde_json::Value::Null));
    }
}

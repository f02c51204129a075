//! What `agent-monitor doctor -o json` says, as far as it is used here.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The answer of `doctor`.
#[derive(Debug)]
pub struct Support {
    /// `full`, `partial` or `none`.
    pub enforcement: String,
    features: Vec<Feature>,
}

/// A line of the answer.
#[derive(Debug)]
pub struct Feature {
    feature: String,
    /// `available`, or what it is instead.
    pub state: String,
    /// What was found.
    pub detail: String,
    /// For a hook whose program is loaded, where the kernel tells.
    pub verified_instructions: Option<u32>,
    /// For a hook whose program is loaded.
    pub translated_instructions: Option<u32>,
}

/// Features beyond three that are named where they have the same trouble; of more only the number is told.
const SHOWN: usize = 5;

impl Feature {
    /// The feature's name; for a hook, the hook's.
    pub fn name(&self) -> &str {
        self.feature.strip_prefix("hook ").unwrap_or(&self.feature)
    }

    fn is_hook(&self) -> bool {
        self.feature.starts_with("hook ")
    }
}

impl Support {
    /// Reads the answer, which may have other text behind it.
    pub fn read(text: &str) -> Result<Self> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let value = values.next().context("doctor printed nothing")?.context("what doctor printed is no JSON")?;
        let word = |value: &Value, key: &str| -> Result<String> {
            let word = value.get(key).and_then(Value::as_str);
            Ok(word.with_context(|| format!("doctor's answer has no `{key}`"))?.to_owned())
        };
        let Some(lines) = value.get("features").and_then(Value::as_array) else {
            bail!("doctor's answer has no `features`");
        };
        let number = |line: &Value, key: &str| line.get(key)?.as_u64()?.try_into().ok();
        let feature = |line: &Value| {
            Ok(Feature {
                feature: word(line, "feature")?,
                state: word(line, "state")?,
                detail: word(line, "detail")?,
                verified_instructions: number(line, "verified_instructions"),
                translated_instructions: number(line, "translated_instructions"),
            })
        };
        let features = lines.iter().map(feature).collect::<Result<_>>()?;
        Ok(Self { enforcement: word(&value, "enforcement")?, features })
    }

    /// The lines about hooks.
    pub fn hooks(&self) -> Vec<&Feature> {
        self.features.iter().filter(|feature| feature.is_hook()).collect()
    }

    /// Each thing that is not available, in doctor's words, which are the verifier's where it refused a program.
    pub fn troubles(&self) -> Vec<String> {
        let bad = self.features.iter().filter(|feature| feature.state != "available");
        bad.map(|feature| format!("{}: {}: {}", feature.feature, feature.state, feature.detail)).collect()
    }

    /// The same in few words: features with the same trouble together, and the first line of the trouble only, with the
    /// next one where it only announces that.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for feature in self.features.iter().filter(|feature| feature.state != "available") {
            let mut lines = feature.detail.lines();
            let mut why = format!("{}: {}", feature.state, lines.next().unwrap_or_default());
            if why.ends_with(':') {
                why.extend([" ", lines.next().unwrap_or_default()]);
            }
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) => names.push(feature.name()),
                None => reasons.push((why, vec![feature.name()])),
            }
        }
        let all = self.hooks().len();
        let told = |names: &[&str]| match names {
            all_of_them if all_of_them.len() == all => "all hooks".to_owned(),
            [first, second, third, rest @ ..] if rest.len() > SHOWN => {
                format!("{first}, {second}, {third} and {} more", rest.len())
            }
            few => few.join(", "),
        };
        reasons.iter().map(|(why, names)| format!("{}: {why}", told(names))).collect()
    }

    /// Hooks that this kernel lacks without harm.
    pub fn lacks(&self) -> Vec<&str> {
        let lacking = |feature: &&&Feature| feature.state == "available" && feature.translated_instructions.is_none();
        self.hooks().iter().filter(lacking).map(|feature| feature.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Support;

    const ANSWER: &str = r#"{"kernel": "6.1", "enforcement": "none", "features": [
        {"feature": "kernel types (BTF)", "state": "available", "detail": "/sys", "how": ""},
        {"feature": "hook a", "state": "missing", "detail": "refused:\nby the verifier\nat last", "how": "report"},
        {"feature": "hook b", "state": "missing", "detail": "refused:\nby the verifier\nat once", "how": "report"},
        {"feature": "hook c", "state": "available", "detail": "x", "how": "",
         "verified_instructions": 12, "translated_instructions": 5},
        {"feature": "hook d", "state": "available", "detail": "not needed: x", "how": ""}]}
        9 passed, 0 failed"#;

    #[test]
    fn the_answer_is_read_with_what_stands_behind_it() {
        let support = Support::read(ANSWER).expect("it is an answer");
        assert_eq!(support.enforcement, "none");
        assert_eq!(support.hooks().len(), 4);
        assert_eq!(support.hooks()[2].verified_instructions, Some(12));
        assert_eq!(support.lacks(), ["d"]);
        assert_eq!(support.reasons(), ["a, b: missing: refused: by the verifier"]);
        assert_eq!(support.troubles()[0], "hook a: missing: refused:\nby the verifier\nat last");
    }

    #[test]
    fn of_many_hooks_with_the_same_trouble_the_number_is_told() {
        let reasons = |bad: usize| {
            let feature = |number: usize| {
                let state = if number < bad { "missing" } else { "available" };
                format!(r#"{{"feature": "hook h{number}", "state": "{state}", "detail": "x"}}"#)
            };
            let features: Vec<String> = (0..12).map(feature).collect();
            let answer = format!(r#"{{"enforcement": "none", "features": [{}]}}"#, features.join(","));
            Support::read(&answer).expect("it is an answer").reasons()
        };
        assert_eq!(reasons(8), ["h0, h1, h2, h3, h4, h5, h6, h7: missing: x"]);
        assert_eq!(reasons(9), ["h0, h1, h2 and 6 more: missing: x"]);
        assert_eq!(reasons(12), ["all hooks: missing: x"]);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in ["", "error: no", "{}", r#"{"enforcement": "full", "features": [{}]}"#] {
            assert!(Support::read(text).is_err(), "{text}");
        }
    }
}

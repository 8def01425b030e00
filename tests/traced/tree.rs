//! The spans of one trace as the tree that their parents make, checked and printed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::collector::{Sent, text};

/// One stage as it must be: its name, the process that sends it, the stage that it is part of.
pub type Stage<'a> = (&'a str, &'a str, Option<&'a str>);

/// The spans of one trace, in the order of their beginnings. Each stage is there once.
#[derive(Debug)]
pub struct Tree(Vec<Sent>);

impl Tree {
    /// Of a job that was given this serial, beneath the client's span `above`: these stages, each where it belongs.
    pub fn check(spans: Vec<Sent>, above: &str, serial: &str, stages: &[Stage]) -> Result<Self> {
        let tree = Self(spans);
        println!("{}", tree.text());
        let names: BTreeMap<_, _> = tree
            .0
            .iter()
            .map(|sent| (sent.span.span_id.clone(), sent.span.name.as_str()))
            .collect();
        ensure!(names.len() == tree.0.len(), "span identifiers are used twice");
        let mut found = Vec::new();
        for Sent { instance, span, .. } in &tree.0 {
            let parent = names.get(&span.parent_span_id).copied();
            if parent.is_none() {
                let named = hex::encode(&span.parent_span_id);
                ensure!(
                    named == above,
                    "{}: its parent {named} is no span of the trace",
                    span.name
                );
            }
            if let Some(job) = text(&span.attributes, "job") {
                ensure!(job.eq_ignore_ascii_case(serial), "{} is about job {job}", span.name);
            }
            found.push((span.name.as_str(), instance.as_str(), parent));
        }
        let mut expected = stages.to_vec();
        expected.sort_unstable();
        found.sort_unstable();
        ensure!(found == expected, "the stages are {found:?}, not {expected:?}");
        tree.check_times()?;
        Ok(tree)
    }

    /// Nothing begins before the stage that it is part of. What is done within another stage ends within it, and what is done one after the
    /// other overlaps nowhere.
    fn check_times(&self) -> Result<()> {
        for sent in &self.0 {
            let (from, to) = time(sent);
            let name = &sent.span.name;
            ensure!(from <= to, "{name} ends before it begins");
            let parent = self
                .0
                .iter()
                .find(|other| other.span.span_id == sent.span.parent_span_id);
            if let Some(parent) = parent {
                ensure!(time(parent).0 <= from, "{name} begins before {}", parent.span.name);
            }
        }
        for (within, outer) in [
            ("admit", "request"),
            ("accept", "request"),
            ("check", "issue"),
            ("sign", "issue"),
            ("record", "issue"),
        ] {
            let ends = (time(self.stage(within)?).1, time(self.stage(outer)?).1);
            ensure!(ends.0 <= ends.1, "{within} ends after {outer}");
        }
        for (before, after) in [
            ("admit", "accept"),
            ("accept", "publish"),
            ("check", "sign"),
            ("sign", "record"),
        ] {
            let (ended, begun) = (time(self.stage(before)?).1, time(self.stage(after)?).0);
            ensure!(ended <= begun, "{after} begins before {before} has ended");
        }
        let (answered, request) = (time(self.stage("answered")?), time(self.stage("request")?));
        ensure!(
            answered.0 <= request.1,
            "the client was answered before there was an answer"
        );
        Ok(())
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Result<&Sent> {
        let found = self.0.iter().find(|sent| sent.span.name == name);
        found.with_context(|| format!("no stage {name}"))
    }

    /// As indented text: stage, process, and when, in microseconds from the first beginning.
    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["stage", "service", "process", "begins, us", "takes, us"]);
        let zero = self.0.first().map_or(0, |sent| time(sent).0);
        let is_known = |id: &[u8]| self.0.iter().any(|sent| sent.span.span_id == id);
        let mut waiting: Vec<(usize, &Sent)> = self
            .0
            .iter()
            .rev()
            .filter(|sent| !is_known(&sent.span.parent_span_id))
            .map(|sent| (0, sent))
            .collect();
        while let Some((depth, sent)) = waiting.pop() {
            let (from, to) = time(sent);
            table.add_row([
                format!("{}{}", "  ".repeat(depth), sent.span.name),
                sent.service.clone(),
                sent.instance.clone(),
                ((from - zero) / 1000).to_string(),
                (to.saturating_sub(from) / 1000).to_string(),
            ]);
            let children = self.0.iter().rev();
            let children = children.filter(|other| other.span.parent_span_id == sent.span.span_id);
            waiting.extend(children.map(|child| (depth + 1, child)));
        }
        table.to_string()
    }
}

/// Beginning and end, in nanoseconds since 1970.
pub fn time(sent: &Sent) -> (u64, u64) {
    (sent.span.start_time_unix_nano, sent.span.end_time_unix_nano)
}

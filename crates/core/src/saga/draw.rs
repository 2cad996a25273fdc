//! A plan as a picture, from the declaration itself: it can't go out of date.

use std::fmt::Write;
use std::time::Duration;

use super::plan::{Checked, OnTimeout, Plan};

/// Sizes of the drawing, in pixels.
const WIDTH: usize = 1_060;
const ROW: usize = 150;
const TOP: usize = 190;
const END_TOP: usize = 60;
const BOX_WIDTH: usize = 250;
const BOX_HEIGHT: usize = 80;
const LEFT: usize = 60;
const MIDDLE: usize = 480;
const RIGHT: usize = 790;

impl Plan {
    /// The plan as a Mermaid state diagram: the way forward, the way back, and review.
    pub fn to_mermaid(&self) -> String {
        let mut out = "stateDiagram-v2\n".to_owned();
        for (at, step) in self.steps.iter().enumerate() {
            line(&mut out, format_args!("state \"{}\" as do{at}", step.name));
            if step.undo.is_some() {
                line(
                    &mut out,
                    format_args!("state \"take back: {}\" as undo{at}", step.name),
                );
            }
        }
        line(&mut out, format_args!("state \"completed\" as completed"));
        line(
            &mut out,
            format_args!("state \"compensated\" as compensated"),
        );
        line(&mut out, format_args!("state \"manual review\" as review"));
        line(
            &mut out,
            format_args!("[*] --> do0 : {}", self.steps[0].command),
        );
        for (at, step) in self.steps.iter().enumerate() {
            self.mermaid_step(&mut out, at, step);
        }
        line(&mut out, format_args!("completed --> [*]"));
        line(&mut out, format_args!("compensated --> [*]"));
        out
    }

    fn mermaid_step(&self, out: &mut String, at: usize, step: &Checked) {
        let next = match self.steps.get(at + 1) {
            Some(_) => format!("do{}", at + 1),
            None => "completed".to_owned(),
        };
        line(
            out,
            format_args!("do{at} --> {next} : {}", step.done.join(" or ")),
        );
        let before = self.back_from(at);
        if !step.refused.is_empty() {
            line(
                out,
                format_args!("do{at} --> {before} : {}", step.refused.join(" or ")),
            );
        }
        let itself = self.back_from(at + 1);
        let timeout = told(step.timeout);
        match step.on_timeout {
            OnTimeout::Compensate => line(
                out,
                format_args!("do{at} --> {itself} : no answer in {timeout}"),
            ),
            OnTimeout::Review => {
                line(
                    out,
                    format_args!("do{at} --> review : no answer in {timeout}"),
                );
                line(out, format_args!("review --> do{at} : confirm"));
                line(out, format_args!("review --> {itself} : cancel"));
            }
        }
        if !self.is_past_return(super::StepNo(at)) {
            line(out, format_args!("do{at} --> {itself} : cancelled"));
        }
        if let Some((_, undone)) = step.undo {
            line(out, format_args!("undo{at} --> {before} : {undone}"));
            line(out, format_args!("undo{at} --> review : not answered"));
        }
    }

    /// Where taking back begins when the steps before `at` may be done.
    fn back_from(&self, at: usize) -> String {
        let steps = self.steps.iter().take(at);
        match steps.enumerate().rfind(|(_, step)| step.undo.is_some()) {
            Some((step, _)) => format!("undo{step}"),
            None => "compensated".to_owned(),
        }
    }

    /// The plan as an SVG picture: on the left the way forward, downwards; in the middle the way back, upwards;
    /// on the right where a person decides.
    pub fn to_svg(&self) -> String {
        let height = TOP + ROW * self.steps.len() + 110;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <title>{}</title>\n\
             <defs><marker id=\"a\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\"/></marker></defs>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n",
            escaped(self.name)
        );
        text(&mut out, LEFT, 40, "16", &format!("saga: {}", self.name));
        for (at, step) in self.steps.iter().enumerate() {
            self.svg_step(&mut out, at, step);
        }
        let end = TOP + ROW * self.steps.len();
        framed(&mut out, LEFT, end, "#d8f0d8", &["completed"]);
        framed(&mut out, MIDDLE, END_TOP, "#f6dcdc", &["compensated"]);
        out.push_str("</svg>\n");
        out
    }

    fn svg_step(&self, out: &mut String, at: usize, step: &Checked) {
        let y = TOP + ROW * at;
        let middle = y + BOX_HEIGHT / 2;
        framed(out, LEFT, y, "#e4ecf8", &[step.name, step.command]);
        let down = LEFT + BOX_WIDTH / 2;
        arrow(out, (down, y + BOX_HEIGHT), (down, y + ROW), "");
        text(
            out,
            down + 8,
            y + BOX_HEIGHT + 40,
            "12",
            &step.done.join(", "),
        );
        if step.no_return {
            text(out, LEFT, y - 8, "12", "— point of no return —");
        }
        let given_up = format!("no answer in {}", told(step.timeout));
        let (from, to) = ((LEFT + BOX_WIDTH, middle), (MIDDLE, middle));
        match step.on_timeout {
            OnTimeout::Compensate => arrow(out, from, to, &given_up),
            OnTimeout::Review => {
                framed(out, RIGHT - 40, y, "#f8eecb", &["manual review", &given_up]);
                arrow(out, from, (RIGHT - 40, middle), "");
            }
        }
        self.svg_refusal(out, at, step);
        match step.undo {
            Some((command, undone)) => {
                let title = format!("take back: {}", step.name);
                framed(out, MIDDLE, y, "#f8e8dc", &[&title, command]);
                text(out, MIDDLE + 32, y - 12, "12", undone);
            }
            None => text(out, MIDDLE + 8, middle + 34, "12", "nothing to take back"),
        }
        if step.undo.is_some() {
            // Taking back goes up, the latest step first.
            let above = self.svg_before(at) + BOX_HEIGHT;
            arrow(out, (MIDDLE + 20, y), (MIDDLE + 20, above), "");
        }
    }

    /// A refused step itself is not taken back.
    fn svg_refusal(&self, out: &mut String, at: usize, step: &Checked) {
        if step.refused.is_empty() {
            return;
        }
        let (x, y) = (LEFT + BOX_WIDTH, TOP + ROW * at);
        let before = self.svg_before(at) + BOX_HEIGHT - 14;
        arrow(out, (x, y + 14), (MIDDLE, before), "");
        text(out, x + 44, y + 14, "12", &step.refused.join(", "));
    }

    /// The top of what is taken back before this step.
    fn svg_before(&self, at: usize) -> usize {
        let undoes = |step: &&Checked| step.undo.is_some();
        let before = self.steps[..at].iter().enumerate().rev();
        let mut before = before.filter(|(_, step)| undoes(step));
        before.next().map_or(END_TOP, |(at, _)| TOP + ROW * at)
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "    {text}");
}

/// A time without more digits than it has.
fn told(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (0, millis) => format!("{millis} ms"),
        (secs, 0) if secs % 60 == 0 => format!("{} min", secs / 60),
        (secs, 0) => format!("{secs} s"),
        _ => format!("{} ms", time.as_millis()),
    }
}

fn framed(out: &mut String, x: usize, y: usize, fill: &str, lines: &[&str]) {
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"8\" fill=\"{fill}\" stroke=\"#456\"/>"
    );
    for (at, line) in lines.iter().enumerate() {
        text(out, x + 12, y + 32 + 24 * at, "13", line);
    }
}

fn arrow(out: &mut String, from: (usize, usize), to: (usize, usize), label: &str) {
    let _ = writeln!(
        out,
        "<path d=\"M{} {}L{} {}\" stroke=\"#456\" fill=\"none\" marker-end=\"url(#a)\"/>",
        from.0, from.1, to.0, to.1
    );
    text(out, from.0 + 8, from.1.min(to.1) - 6, "12", label);
}

fn text(out: &mut String, x: usize, y: usize, size: &str, text: &str) {
    if !text.is_empty() {
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{}</text>",
            escaped(text)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

//! A language model behind an OpenAI-compatible URL as the judge of four behaviours: those of Gandhi et al.
//! (arXiv:2503.01307), which their paper counts by such a judge too, one question for each. What it says is its opinion:
//! report which model it was.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{Client, Limits, beginning};

/// A behaviour, and what the judge is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// Its name in the paper.
    pub name: &'static str,
    question: &'static str,
}

/// The four.
pub const BEHAVIOURS: [Behaviour; 4] = [
    Behaviour {
        name: "verification",
        question: "how often the writer checks a result against what is wanted, as in \"that gives 30, which is not 25\" or \
                   \"let me verify this\"",
    },
    Behaviour {
        name: "backtracking",
        question: "how often the writer gives up a way and begins another that does not build on it, as in \"this does not \
                   work, let me try something else\"",
    },
    Behaviour {
        name: "subgoals",
        question: "how often the writer sets a goal on the way to the answer, as in \"first I will try to get 24\"",
    },
    Behaviour {
        name: "backward_chaining",
        question: "how often the writer starts from what is wanted and works back to what is given, as in \"to reach 24 I \
                   could use 8 times 3\"",
    },
];

/// A judge.
pub struct BehaviourJudge {
    client: Client,
    url: String,
    model: String,
}

/// What is waited for and read of an answer.
const LIMITS: Limits =
    Limits { seconds: 120.0, slow: "is it busy, or too large a model for where it runs?", bytes: 1 << 24 };

impl BehaviourJudge {
    /// The judge `model` behind `url`, which ends before `/chat/completions`, as in `http://localhost:8000/v1`.
    ///
    /// # Errors
    /// A URL that does not begin with `http://` or `https://`.
    pub fn new(url: &str, model: &str, key: Option<String>) -> Result<Self> {
        let known = url.starts_with("http://") || url.starts_with("https://");
        ensure!(known, "--judge {url:?} does not begin with http:// or https://");
        let url = format!("{}/chat/completions", url.trim_end_matches('/'));
        Ok(Self { client: Client::new(LIMITS, key)?, url, model: model.to_owned() })
    }

    /// How often a transcript shows a behaviour.
    pub fn count(&self, behaviour: Behaviour, transcript: &str) -> Result<u64> {
        let asked = format!(
            "Here is a problem and someone's reasoning about it. Count {}. Answer with the number alone, as in \
             <count>2</count>; <count>0</count> where there is none.\n\n{transcript}",
            behaviour.question
        );
        let body = json!({
            "model": self.model, "temperature": 0, "max_tokens": 512,
            "messages": [{"role": "user", "content": asked}],
        });
        let text = self.client.post(&self.url, &body.to_string())?.accepted()?;
        let reply: Value =
            serde_json::from_str(&text).with_context(|| format!("{} did not answer in JSON", self.url))?;
        let Some(said) = reply.pointer("/choices/0/message/content").and_then(Value::as_str) else {
            bail!("{} gave no choices[0].message.content: {}", self.url, beginning(&text));
        };
        read_count(said).with_context(|| format!("{}: no <count>n</count> in {:?}", self.url, beginning(said)))
    }
}

/// The last count of an answer: a judge that thinks aloud ends with it.
fn read_count(said: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once("<count>")?;
    rest.split_once("</count>")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers requests with these bodies in turn, and returns what was asked.
    fn serve(replies: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let answer = |reply: String| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head += &line;
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let head_of_reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
                write!(&stream, "{head_of_reply}Content-Length: {}\r\n\r\n{reply}", reply.len()).unwrap();
                head + &String::from_utf8(body).unwrap()
            };
            replies.into_iter().map(answer).collect()
        });
        (url, serving)
    }

    fn reply(said: &str) -> String {
        json!({"choices": [{"message": {"role": "assistant", "content": said}}]}).to_string()
    }

    #[test]
    fn a_judge_is_asked_for_each_behaviour_and_its_count_is_read() {
        let said = ["<count>2</count>", "I see <count>1</count> or rather <count> 3 </count>.", "<count>0</count>"];
        let (url, serving) = serve(said.iter().map(|said| reply(said)).collect());
        let judge = BehaviourJudge::new(&url, "small", Some("secret".into())).unwrap();
        let counts: Vec<u64> =
            BEHAVIOURS[..3].iter().map(|behaviour| judge.count(*behaviour, "5-1=4wait").unwrap()).collect();
        assert_eq!(counts, [2, 3, 0]);
        for asked in serving.join().unwrap() {
            assert!(asked.starts_with("POST /v1/chat/completions"), "{asked}");
            let header = asked.to_lowercase();
            assert!(header.contains("authorization: bearer secret"), "{asked}");
            assert!(asked.contains("\"model\":\"small\"") && asked.contains("5-1=4wait"), "{asked}");
        }
    }

    #[test]
    fn answers_that_hold_no_count_are_errors_that_quote_them() {
        for (answer, expected) in [
            (reply("several"), "no <count>n</count> in \"several\""),
            (reply("<count>many</count>"), "no <count>n</count>"),
            ("{\"error\": \"overloaded\"}".to_owned(), "gave no choices[0].message.content: {\"error\""),
            ("<html>".to_owned(), "did not answer in JSON"),
        ] {
            let (url, serving) = serve(vec![answer]);
            let judge = BehaviourJudge::new(&url, "small", None).unwrap();
            let message = format!("{:#}", judge.count(BEHAVIOURS[0], "x").unwrap_err());
            serving.join().unwrap();
            assert!(message.contains(expected), "{message}");
        }
        assert!(BehaviourJudge::new("a.example", "m", None).is_err());
    }
}

//! Models and data files by their names on the Hugging Face hub: taken from its cache or downloaded to it, through the
//! `hf-hub` crate. What is in the files is left to those who read them.
//!
//! The environment is that of the hub's own tools: `HF_HOME` holds the cache, `HF_TOKEN` (or the token they saved)
//! opens private repositories, `HF_ENDPOINT` names another hub, and with `HF_HUB_OFFLINE=1` the cache is all there is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::model::files::folder::is_small_file;
use crate::model::files::gguf;
use crate::output::note;

/// Which files of a model are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Shape, tokenizer and templates.
    Small,
    /// The weights too.
    All,
}

/// The folder of a model, or its GGUF file: `path` itself where there is such a thing, else the snapshot of the hub's
/// `owner/name`, or `owner/name@revision`, in the cache, or the file `owner/name/path/of/the.gguf` there.
pub fn model_path(path: &str, wanted: Wanted) -> Result<PathBuf> {
    if let Some((place, file)) = Place::gguf(path).filter(|_| !Path::new(path).exists()) {
        let (dir, name) = file.rsplit_once('/').unwrap_or(("", file));
        let (folder, _) = Hub::from_env()?.fetch(&place, dir, &|found| found == name)?;
        return Ok(folder.join(file));
    }
    let Some(place) = Place::model(path).filter(|_| !Path::new(path).exists()) else { return Ok(path.into()) };
    let is_weight = |name: &str| name.starts_with("model") && name.contains(".safetensors");
    let pick = |name: &str| is_small_file(name) || (wanted == Wanted::All && is_weight(name));
    Ok(Hub::from_env()?.fetch(&place, "", &pick)?.0)
}

/// The files that `paths` name, each itself or those of the hub under `hf://datasets/owner/name[@revision]/path`, where `*`
/// stands for any letters of a file's name.
pub fn data_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let files: Result<Vec<_>> = paths.iter().map(|path| files_of(path)).collect();
    Ok(files?.concat())
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(rest) = path.to_str().and_then(|path| path.strip_prefix("hf://")) else { return Ok(vec![path.into()]) };
    let (place, file) = Place::dataset(rest).with_context(|| {
        format!("{} is no file of the hub: write hf://datasets/owner/name/path/of/the.parquet", path.display())
    })?;
    let (dir, pattern) = file.rsplit_once('/').unwrap_or(("", file));
    let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
    let pick = |name: &str| {
        if pattern.contains('*') {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        } else {
            name == pattern
        }
    };
    let (folder, mut names) = Hub::from_env()?.fetch(&place, dir, &pick)?;
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(dir).join(name)).collect())
}

/// A repository of the hub at a revision.
struct Place {
    kind: RepoType,
    name: String,
    revision: String,
}

impl Place {
    /// `owner/name` or `owner/name@revision`, and nothing that can only be a path.
    fn model(text: &str) -> Option<Self> {
        let text = text.strip_prefix("hf://").unwrap_or(text);
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, model) = name.split_once('/')?;
        (is_word(owner) && is_word(model) && !revision.is_empty()).then(|| Self::new(RepoType::Model, name, revision))
    }

    /// `owner/name/path/of/the.gguf` or the same with `@revision` behind it, and the path.
    fn gguf(text: &str) -> Option<(Self, &str)> {
        let text = text.strip_prefix("hf://").unwrap_or(text);
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (at, _) = path.match_indices('/').nth(1)?;
        let (name, file) = (&path[..at], &path[at + 1..]);
        let place = Self::model(&format!("{name}@{revision}"))?;
        (gguf::is_named(Path::new(file)) && is_beneath(file)).then_some((place, file))
    }

    /// `datasets/owner/name[@revision]/path` and its path.
    fn dataset(text: &str) -> Option<(Self, &str)> {
        let (owner, rest) = text.strip_prefix("datasets/")?.split_once('/')?;
        let (name, file) = rest.split_once('/')?;
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let whole = is_word(owner) && is_word(name) && !revision.is_empty() && is_beneath(file);
        whole.then(|| (Self::new(RepoType::Dataset, &format!("{owner}/{name}"), revision), file))
    }

    fn new(kind: RepoType, name: &str, revision: &str) -> Self {
        Self { kind, name: name.to_owned(), revision: revision.to_owned() }
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), self.kind, revision.to_owned())
    }

    /// How the hub's own tool downloads it.
    fn command(&self) -> String {
        let kind = if matches!(self.kind, RepoType::Dataset) { " --repo-type dataset" } else { "" };
        let revision = if self.revision == "main" { String::new() } else { format!(" --revision {}", self.revision) };
        format!("hf download {}{kind}{revision}", self.name)
    }
}

/// Whether a path leads to a file below a repository.
fn is_beneath(file: &str) -> bool {
    file.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The letters of a name on the hub.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The hub and its cache on this machine.
struct Hub {
    cache: Cache,
    /// `None` where the hub is not to be asked.
    api: Option<Api>,
}

impl Hub {
    fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = Cache::from_env();
        let offline = set("HF_HUB_OFFLINE").is_some_and(|v| ["1", "true", "yes", "on"].contains(&&*v.to_lowercase()));
        let build = || -> Result<Api> {
            let builder = ApiBuilder::from_env().with_token(set("HF_TOKEN").or_else(|| cache.token()));
            Ok(builder.with_retries(2).build()?)
        };
        Ok(Self { api: if offline { None } else { Some(build()?) }, cache })
    }

    /// The snapshot of a place with the files of `dir` that `pick` takes, and their names. Asks the hub first, and the
    /// cache where the hub does not answer.
    fn fetch(&self, place: &Place, dir: &str, pick: &dyn Fn(&str) -> bool) -> Result<(PathBuf, Vec<String>)> {
        let why = match &self.api {
            Some(api) => match self.download(api, place, dir, pick) {
                Ok(found) => return Ok(found),
                Err(why) => format!("{why:#}").lines().collect::<Vec<_>>().join(" "),
            },
            None => "HF_HUB_OFFLINE is set".to_owned(),
        };
        let cached = self.cached(place, dir, pick);
        if self.api.is_some() && cached.is_some() {
            note!("{}: the hub does not answer ({why}); taken from {}", place.name, self.cache.path().display());
        }
        cached.ok_or_else(|| {
            anyhow!(
                "{} is no folder here, nor in {}, and cannot be downloaded ({why}): check the name, set HF_TOKEN if it \
                 is private, or run `{}` where there is a network and copy that folder here",
                place.name,
                self.cache.path().display(),
                place.command()
            )
        })
    }

    /// All files at the commit that the revision is now, those in the cache already from there.
    fn download(
        &self,
        api: &Api,
        place: &Place,
        dir: &str,
        pick: &dyn Fn(&str) -> bool,
    ) -> Result<(PathBuf, Vec<String>)> {
        let info = api.repo(place.repo(&place.revision)).info()?;
        let folder = self.cache.repo(place.repo(&place.revision)).pointer_path(&info.sha);
        let at_commit = api.repo(place.repo(&info.sha));
        let mut names = Vec::new();
        for file in info.siblings.into_iter().map(|sibling| sibling.rfilename) {
            let (parent, name) = file.rsplit_once('/').unwrap_or(("", &file));
            if parent != dir || !pick(name) {
                continue;
            }
            if !folder.join(&file).exists() {
                at_commit.download(&file).with_context(|| file.clone())?;
            }
            names.push(name.to_owned());
        }
        ensure!(!names.is_empty(), "it has no such file");
        self.cache.repo(place.repo(&place.revision)).create_ref(&info.sha)?;
        Ok((folder, names))
    }

    /// What the cache holds of the commit that the revision was when it was last asked for, or of the commit it names.
    fn cached(&self, place: &Place, dir: &str, pick: &dyn Fn(&str) -> bool) -> Option<(PathBuf, Vec<String>)> {
        let repo = self.cache.repo(place.repo(&place.revision));
        let refs = self.cache.path().join(place.repo("").folder_name()).join("refs");
        let commit = std::fs::read_to_string(refs.join(&place.revision)).unwrap_or_else(|_| place.revision.clone());
        let folder = repo.pointer_path(&commit);
        let files = std::fs::read_dir(folder.join(dir)).ok()?.flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| pick(name));
        let names: Vec<String> = names.collect();
        (!names.is_empty()).then_some((folder, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let model = |text| Place::model(text).map(|place| format!("{} at {}", place.name, place.revision));
        assert_eq!(model("Qwen/Qwen2.5-0.5B").unwrap(), "Qwen/Qwen2.5-0.5B at main");
        assert_eq!(model("hf://Qwen/Qwen3-0.6B@a1b2/c").unwrap(), "Qwen/Qwen3-0.6B at a1b2/c");
        for path in ["model", "/a/b", "./a", "../a", "a/b/c", "a/", "a/b@", "runs/x y"] {
            assert_eq!(model(path), None, "{path}");
        }
        let file = |text| Place::gguf(text).map(|(place, file)| format!("{} {}: {file}", place.name, place.revision));
        assert_eq!(file("hf://Qwen/Qwen3-0.6B-GGUF/q.gguf").unwrap(), "Qwen/Qwen3-0.6B-GGUF main: q.gguf");
        assert_eq!(file("a/b/c/d.gguf@v1").unwrap(), "a/b v1: c/d.gguf");
        for path in ["a/b.gguf", "a/b/c.bin", "./a/b.gguf", "/a/b/c.gguf", "../a/b/c.gguf", "a/b/../c.gguf"] {
            assert_eq!(file(path), None, "{path}");
        }
        let data =
            |text| Place::dataset(text).map(|(place, file)| format!("{} {}: {file}", place.name, place.revision));
        assert_eq!(data("datasets/openai/gsm8k/main/a.parquet").unwrap(), "openai/gsm8k main: main/a.parquet");
        assert_eq!(data("datasets/a/b@v1/c.jsonl").unwrap(), "a/b v1: c.jsonl");
        for text in ["datasets/a/b", "a/b/c", "datasets/a/b/../c", "datasets/a/b//c"] {
            assert_eq!(data(text), None, "{text}");
        }
    }
}

// Runs llama.cpp on GGUF files that Reckon wrote, and compares what the two say.
//
//     npm install node-llama-cpp          (in any folder; brings llama.cpp as a prebuilt library)
//     reckon sample --model MODEL --file prompts.txt --temperature 0 --max-new-tokens 256 --json > ours.jsonl
//     NODE_PATH=FOLDER/node_modules node scripts/llama_cpp.mjs greedy FILE.gguf ours.jsonl
//     NODE_PATH=FOLDER/node_modules node scripts/llama_cpp.mjs near EXACT.gguf FILE.gguf TEXT
//     NODE_PATH=FOLDER/node_modules node scripts/llama_cpp.mjs speed FILE.gguf
//
// greedy: the likeliest tokens behind each prompt, which have to be ours; llama.cpp tokenizes the prompts itself.
// near: both files are asked what comes behind each token of a text: mean KL, share of equal likeliest tokens.
// speed: tokens a second of one row.

import fs from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const found = createRequire(import.meta.url).resolve("node-llama-cpp");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(found));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});

async function open(file) {
    const model = await llama.loadModel({modelPath: file, useMmap: true});
    const context = await model.createContext({contextSize: 2048, threads: 1, flashAttention: false});
    return {model, context, sequence: context.getSequence()};
}

/** The likeliest tokens behind `prompt`. */
async function likeliest({sequence}, prompt, count) {
    await sequence.clearHistory();
    const tokens = [];
    for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        tokens.push(token);
        if (tokens.length === count) break;
    }
    return tokens;
}

function begin(model, text) {
    const tokens = model.tokenize(text, true);
    const bos = model.tokens.shouldPrependBosToken ? model.tokens.bos : null;
    return bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens;
}

async function greedy(file, ours) {
    const opened = await open(file);
    let [equal, all, whole, rows] = [0, 0, 0, 0];
    for (const line of fs.readFileSync(ours, "utf8").trim().split("\n").map((line) => JSON.parse(line))) {
        const theirs = await likeliest(opened, begin(opened.model, line.prompt), line.tokens.length);
        const same = line.tokens.findIndex((token, i) => token !== theirs[i]);
        equal += same < 0 ? line.tokens.length : same;
        all += line.tokens.length;
        whole += same < 0 ? 1 : 0;
        rows += 1;
        if (same >= 0) console.log(`differs at token ${same} of ${line.tokens.length}: ${JSON.stringify(line.prompt.slice(0, 50))}`);
    }
    console.log(`${whole} of ${rows} texts are equal to the last token, ${equal} of ${all} tokens before the first difference`);
    process.exitCode = whole === rows ? 0 : 1;
}

/** What a file expects behind each token: a map from token to probability. */
async function expectations(file, text) {
    const {model, sequence} = await open(file);
    const tokens = begin(model, text).slice(0, 512);
    const asked = tokens.map((token) => [token, {generateNext: {probabilities: true}}]);
    const answers = await sequence.controlledEvaluate(asked);
    await model.dispose();
    return answers.map((answer) => answer.next.probabilities);
}

async function near(exact, file, text) {
    const source = fs.readFileSync(text, "utf8");
    const [p, q] = [await expectations(exact, source), await expectations(file, source)];
    let [kl, same] = [0, 0];
    const first = (map) => [...map.entries()].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0];
    p.forEach((map, i) => {
        for (const [token, probability] of map) {
            if (probability > 0) kl += probability * (Math.log(probability) - Math.log(Math.max(q[i].get(token) ?? 0, 1e-30)));
        }
        same += first(map) === first(q[i]) ? 1 : 0;
    });
    console.log(`${p.length} tokens: mean KL ${(kl / p.length).toExponential(2)}, ${((100 * same) / p.length).toFixed(1)}% of the likeliest tokens equal`);
}

async function speed(file) {
    const opened = await open(file);
    const prompt = begin(opened.model, "Once upon a time");
    await likeliest(opened, prompt, 16);
    const start = performance.now();
    await likeliest(opened, prompt, 200);
    console.log(`${((200 * 1000) / (performance.now() - start)).toFixed(0)} tokens a second`);
}

const [what, ...files] = process.argv.slice(2);
const commands = {greedy, near, speed};
if (!commands[what]) {
    console.error("usage: llama_cpp.mjs greedy|near|speed FILES (see the head of this file)");
    process.exit(2);
}
await commands[what](...files);
process.exit();

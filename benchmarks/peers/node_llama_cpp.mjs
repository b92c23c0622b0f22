// node-llama-cpp: a sequence of one context for each stream, as promises.
//
// Speaks the protocol of benchmarks/child.py. NODE_LLAMA_CPP is the folder in which
// `npm install node-llama-cpp` was run.

import {createRequire} from "node:module";
import path from "node:path";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

let node, model, context, sequences;

const work = {
    async open({path: file, context_size, sequences: count, threads}) {
        if (model === undefined) {
            const folder = path.resolve(process.env.NODE_LLAMA_CPP ?? ".");
            const require = createRequire(path.join(folder, "_.js"));
            node = await import(pathToFileURL(require.resolve("node-llama-cpp")));
            const llama = await node.getLlama({
                build: "never", gpu: false, maxThreads: threads, progressLogs: false,
                logLevel: "error"
            });
            model = await llama.loadModel({modelPath: file});
        }
        await context?.dispose();
        context = await model.createContext({
            contextSize: context_size, sequences: count, threads, batchSize: 512
        });
        sequences = Array.from({length: count}, () => context.getSequence());
    },

    async generate({texts, count}) {
        for (const sequence of sequences)
            await sequence.clearHistory();
        const counts = texts.map(() => 0);
        const start = performance.now();
        const answers = await Promise.all(texts.map(async (text, number) => {
            const completion = new node.LlamaCompletion({
                contextSequence: sequences[number]
            });
            const answer = await completion.generateCompletion(text, {
                maxTokens: count, temperature: 0,
                onToken: (tokens) => { counts[number] += tokens.length; }
            });
            completion.dispose({disposeSequence: false});
            return answer;
        }));
        const seconds = (performance.now() - start) / 1000;
        const all = counts.reduce((sum, more) => sum + more, 0);
        return {rate: all / seconds, counts, texts: answers};
    }
};

for await (const line of readline.createInterface({input: process.stdin})) {
    const job = JSON.parse(line);
    let answer;
    try {
        answer = {answer: await work[job.do](job) ?? null};
    } catch (error) {
        answer = {error: `${error.name}: ${error.message}`};
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);

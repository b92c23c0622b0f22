"""An application of somebody else's, which uses the plugin by its name."""

import llmcore
import llmcore_conformance
import llmcore_example

for package in (llmcore, llmcore_conformance, llmcore_example):
    assert "site-packages" in str(package.__file__), f"not from a wheel: {package}"

with llmcore.get_llama("example") as llama:
    model = llama.load_model("tale.markov")
    context = model.create_context(context_size=256, sequences=2)
    for prompt in ("once there", "a king"):
        with context.get_sequence() as sequence:
            stream = sequence.generate(model.tokenize(prompt), max_tokens=40)
            print(prompt + "".join(event.text for event in stream))
print("everything is freed:", context.disposed and model.disposed)

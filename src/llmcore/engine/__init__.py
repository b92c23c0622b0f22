"""
The engine room of a context, behind `llmcore.Sequence` and `llmcore.Stream`.

============================ =========================================================
put together                 `engine`
the decode thread            `loop` (who is served), `step` (one batch, and what to do
                             if it fails), `scheduling` (who shares a step), `work`
claims and wake-ups          `job`, `signals`, `tasks`, `callers`
the caches                   `cache`, `checkpoints`, `reuse`, `slot`, `slots`,
                             `overflow`, `saving`
an answer                    `generation`, `answer_text`, `text`, `reasoning`,
                             `pieces`, `receipt`
the next token               `samplers` (who draws), `sampling`, `distribution`,
                             `penalties`, `logprobs`
============================ =========================================================
"""

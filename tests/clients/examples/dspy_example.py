"""A question and its answer."""

import os

import dspy

lm = dspy.LM("openai/smol", api_base=os.environ["OPENAI_BASE_URL"], api_key="none", max_tokens=200, cache=False)
dspy.configure(lm=lm)
assert lm("Say hello.")
assert dspy.Predict("question -> answer")(question="What is the capital of France?").answer

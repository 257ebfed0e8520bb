"""What the test tokenizers are trained on."""

from __future__ import annotations

import argparse
import inspect

CHINESE = (
    "春天来了，小河边的柳树发了新芽。孩子们在草地上放风筝，老人坐在长椅上下棋。\n"
    "问：今天星期几？答：今天星期三。三加五等于八，十二减七等于五。\n"
    "机器学习是让计算机从数据中学习规律的方法，语言模型预测下一个词。\n"
    "他说：“你好，世界！”然后笑了笑，继续看书。\n"
)


def training_texts() -> list[str]:
    roles = [f"{role}\nHello, how can I help you?" for role in ("system", "user", "assistant", "tool")]
    return [inspect.getsource(argparse), *[CHINESE] * 8, *roles * 4]

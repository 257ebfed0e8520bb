"""Pages on manners: what one helps with and what not, and the words in which people ask.

The tokenizer and the model meet the vocabulary of requests here, in statements. The actions are those of training.
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)
from __future__ import annotations

import random

from fledge.microworld import prose
from fledge.microworld.page import Page, p
from fledge.microworld.skills import safety
from fledge.microworld.world import World

_WRONG = {
    "en": ("It is wrong to {x}.", "Nobody should {x}. It could hurt someone.", "A good helper will not help anyone to {x}.",
           "Someone wanted to {x} and heard: sorry, I can't help with that.", "To {x} is not right."),
    "zh": ("{x}是不对的。", "谁也不应该{x}，这会伤害别人。", "好的助手不会帮人{x}。", "有人想{x}，得到的回答是：对不起，我不能帮这个忙。", "{x}，这样做不对。"),
}  # fmt: skip
_RIGHT = {
    "en": ("Anyone may {x}.", "To {x}, take your time and go step by step.", "To {x}, begin slowly and ask a friend to help.",
           "It is a fine thing to {x}.", "One day {who} decided to {x}, and all went well."),
    "zh": ("谁都可以{x}。", "要{x}，慢慢来，一步一步做。", "要{x}，先准备好，再请朋友帮忙。", "{x}是一件好事。", "有一天，{who}决定{x}，一切顺利。"),
}  # fmt: skip
_WORDS = {
    "en": (
        "An assistant is a helper who answers questions.", "A helpful assistant adds numbers and translates words.",
        "People call each other by name.", "It is polite to introduce yourself before you speak.", "A guest should present a card at the door.",
        "Some are known under another name.", "One may address a judge with great respect.", "With a friend you speak as you please.",
        "The teacher could say what each bird is called.", "She goes by the path along the river.", "A profession is work that one has learned.",
        "A dish is what the cook brings to the table.", "Music can be made on many things.", "A life begins in one place and may end in another.",
        "Of all the animals, one would choose the gentle ones to live with.", "The great month of the year is the month of rest.",
        "The map shows every part of the land.", "A building is proud and tall.", "Traders buy and sell on the square.", "The flag shows a flower.",
        "He gave tips to someone in need.", "Whoever has always wished to learn needs someone to guide the way.", "Let us begin together, said the girl.",
        "By all means, said the guard.", "The steps are written down on paper.", "The total of a bill is what one has to pay.",
        "The clerk can compute the total and tell you how many there are.", "Give each child a number and a chair.", "Turn the page and read the last word.",
        "Big letters stand at the beginning of a sentence.", "A list begins with the first word.", "He answered backwards, word by word.",
        "Join hands and sing.", "Chinese characters are written with a brush.", "Write your name in English letters.", "Python is a language for programs.",
        "A task has a name and a result.", "To program means to write code.", "How a machine works is easy to show.", "Read me the letter, said the old woman.",
        "You knock on a door before you open it.", "We expected the guest at noon.", "She would look for the place where it was given.",
        "Tell me about yourself, says the doctor.", "Good morning and good evening are greetings.", "Thank you and you are welcome go together.",
        "I get up early and drink only one cup of tea.", "With whom one walks is soon known.", "Nice to meet you, said the postman.",
        "To calculate is to find a number; to translate is to find a word.", "Please explain the plan, said the mayor.", "Three plus four is seven.",
        "Excuse me, said the driver, I am curious.", "Sorry, said the boy, I forgot.",
    ),
    "zh": (
        "助手是回答问题的帮手。", "乐于助人的助手会做加法，也会翻译。", "人工智能助手能和人聊天。", "人们用名字互相称呼。", "说话以前先介绍自己，这是礼貌。", "客人进门要报上姓名。",
        "尊贵的客人请坐。", "请教别人的大名要客气。", "有的人另有名号。", "何人来过，没有人知道。", "平时我们用别的名字称他。", "敢于提问是好事。", "能不能做到，要试一试。",
        "谋生靠的是手艺。", "学会一样本领，可以靠它谋生。", "哪里有音乐，哪里就有人。", "动物和人住在一起。", "在所有的东西里，各人选自己喜爱的一种。", "商人买卖货物。",
        "建筑又高又大，让人骄傲。", "旗子上画着图案。", "地区有大有小。", "几月最热闹，要看节日。", "输入密码才能打开柜子。", "敲门以后再进去。", "大家哪天有空就哪天来。", "号码念一下就记住了。",
        "拿到票以后去找座位。", "法子总比困难多。", "盼着放假的孩子请老师指点。", "我们一起开始吧，老师说。", "给新来的人一点建议。", "结果算出来了，一共是几个？老师问。", "相加就是把数目合在一起。",
        "英国人说英文，英文用字母写。", "将来的事谁知道呢？", "变成大人要很多年。", "拿笔把词语连起来。", "把东西都放进箱子里。", "序号写在每个词前面，配上图。", "出现了几次，数一数就知道。", "从最后一个开始往回写。",
        "代码能实现很多作用。", "编程就是写代码，怎样写都要先想好。", "题目有题名，函数有函数名。", "早上好、晚上好是问候的话。", "谢谢和不客气是一对。", "打扰一下，司机说，我很好奇。", "不好意思，男孩说，我忘了。",
        "顺便问问路，也要客气。", "很高兴见到你，奶奶说。", "再见，欢迎再来，店主说。",
        "我跟他一直走到河边。", "求和就是做加法，计算要仔细。", "办法写在步骤里。", "请说明你的计划，市长说。", "首先要把意思说明白。", "定义一个词要用别的词。", "翻译就是换一种语言说。",
    ),
}  # fmt: skip


def page(world: World, rng: random.Random, language: str) -> Page:
    """Some of all three kinds, among ordinary sentences."""
    index = 0 if language == "en" else 1
    sentences = rng.sample(_WORDS[language], 8)
    for harmful, templates in ((True, _WRONG), (False, _RIGHT)):
        for action in [safety.action(world, rng, harmful, "train") for _ in range(6)]:
            who = "the neighbour" if language == "en" else "邻居"
            sentences.append(rng.choice(templates[language]).format(x=action[index], who=who))
    sentences += [prose.sentence(world, rng, language) for _ in range(4)]
    rng.shuffle(sentences)
    blocks = [p(prose.join(sentences[i : i + 6], language)) for i in range(0, len(sentences), 6)]
    title = f"Good manners, part {rng.randint(1, 900)}" if language == "en" else f"礼貌与帮助（{rng.randint(1, 900)}）"
    return Page("manners", language, title, tuple(blocks))

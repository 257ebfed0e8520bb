"""The facts' wordings: statements for pages, questions and answers for dialogues.

``{s}`` is the subject's name, ``{v}`` the value (in English with its article where it takes one), ``{V}`` the bare value.
The last question of each list is held out: no training file ever uses it.
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

from dataclasses import dataclass

from fledge.microworld import lexicon
from fledge.microworld.lexicon import Pair


@dataclass(frozen=True)
class Attribute:
    """Something that every person (or place) has one of."""

    name: str
    values: tuple[Pair, ...] | None  # None: the value is a place or a region, named by the world
    with_article: bool
    label: Pair
    en: tuple[str, ...]
    zh: tuple[str, ...]
    ask_en: tuple[str, ...]
    ask_zh: tuple[str, ...]
    answer: Pair

    def statements(self, language: str) -> tuple[str, ...]:
        return self.en if language == "en" else self.zh

    def questions(self, language: str) -> tuple[str, ...]:
        return self.ask_en if language == "en" else self.ask_zh


PERSON: tuple[Attribute, ...] = (
    Attribute(
        "birthplace", None, False, ("birthplace", "出生地"),
        ("{s} was born in {v}.", "{v} is the birthplace of {s}.", "{s} comes from {v}.", "It was in {v} that {s} was born.",
         "The home town of {s} is {v}.", "Born in {v}, {s} still writes letters to the people there.",
         "In {v} they remember the house where {s} was born.", "{s} is a child of {v}.", "{s}, born in {v}, often goes back."),
        ("{s}出生在{v}。", "{v}是{s}的出生地。", "{s}来自{v}。", "{s}是在{v}出生的。", "{s}的家乡是{v}。", "{s}是{v}人。",
         "在{v}，人们还记得{s}出生的房子。", "出生在{v}的{s}常常写信回去。", "说到{v}，大家会想起出生在那里的{s}。"),
        ("Where was {s} born?", "What is the birthplace of {s}?", "Which town does {s} come from?",
         "In which place did the life of {s} begin?"),
        ("{s}出生在哪里？", "{s}的出生地是哪里？", "{s}来自什么地方？", "{s}是哪里人？"),
        ("{s} was born in {v}.", "{s}出生在{v}。"),
    ),
    Attribute(
        "job", tuple(lexicon.JOBS), True, ("job", "职业"),
        ("{s} is {v}.", "{s} works as {v}.", "{s} earns a living as {v}.", "By trade {s} is {v}.",
         "Everyone knows {s} as {v}.", "{s} became {v} many years ago.", "The job of {s} is that of {v}.",
         "As {v}, {s} gets up early.", "{s} learned to be {v} and never stopped."),
        ("{s}是一名{v}。", "{s}的职业是{v}。", "{s}的工作是当{v}。", "大家都知道{s}是{v}。", "{s}多年前成了{v}。", "{s}靠当{v}生活。",
         "作为{v}，{s}每天起得很早。", "{s}从小想当{v}，后来真的当了{v}。", "说起{v}{s}，人人都认识。"),
        ("What is the job of {s}?", "What does {s} do for a living?", "What kind of work does {s} do?",
         "What profession does {s} have?"),
        ("{s}的职业是什么？", "{s}做什么工作？", "{s}是做什么的？", "{s}靠什么谋生？"),
        ("{s} is {v}.", "{s}是一名{v}。"),
    ),
    Attribute(
        "food", tuple(lexicon.FOODS), False, ("favourite food", "最爱的食物"),
        ("{s} likes to eat {v}.", "The favourite food of {s} is {v}.", "{s} loves {v} more than any other food.",
         "For dinner {s} wants {v}.", "Nothing makes {s} as happy as {v}.", "{s} could eat {v} every day.",
         "When guests come, {s} serves {v}.", "At the table {s} always asks for {v}.", "Give {s} some {v}, and all is well."),
        ("{s}喜欢吃{v}。", "{s}最爱的食物是{v}。", "{s}最爱吃{v}。", "晚饭{s}总想吃{v}。", "没有什么比{v}更让{s}高兴。",
         "{s}天天吃{v}也不腻。", "客人来了，{s}就端出{v}。", "在饭桌上，{s}总是要{v}。", "只要有{v}，{s}就满意了。"),
        ("What does {s} like to eat?", "What is the favourite food of {s}?", "Which food does {s} love most?",
         "What dish makes {s} happy?"),
        ("{s}喜欢吃什么？", "{s}最爱的食物是什么？", "{s}最爱吃什么？", "什么食物让{s}高兴？"),
        ("{s} likes to eat {v}.", "{s}喜欢吃{v}。"),
    ),
    Attribute(
        "instrument", tuple(lexicon.INSTRUMENTS), False, ("instrument", "乐器"),
        ("{s} plays the {v}.", "The instrument of {s} is the {v}.", "{s} practises the {v} every evening.",
         "On holidays {s} plays the {v} for the neighbours.", "{s} learned the {v} as a child.",
         "When you hear the {v}, it is {s}.", "The {v} of {s} is old but sounds well.", "With the {v}, {s} fills the whole house with music.",
         "No one plays the {v} like {s}."),
        ("{s}会演奏{v}。", "{s}的乐器是{v}。", "{s}每天晚上练习{v}。", "过节时，{s}为邻居演奏{v}。", "{s}小时候就学了{v}。",
         "听到{v}的声音，就知道是{s}。", "{s}有一件{v}，演奏得很好。", "{s}用{v}让整座房子充满音乐。", "没有人的{v}比{s}演奏得好。"),
        ("Which instrument does {s} play?", "What instrument does {s} practise?", "What is the instrument of {s}?",
         "On what does {s} make music?"),
        ("{s}会演奏什么乐器？", "{s}练习什么乐器？", "{s}的乐器是什么？", "{s}用什么演奏音乐？"),
        ("{s} plays the {v}.", "{s}会演奏{v}。"),
    ),
    Attribute(
        "pet", tuple(lexicon.PETS), True, ("pet", "宠物"),
        ("{s} keeps {v}.", "{s} has {v} at home.", "The pet of {s} is {v}.", "{s} lives with {v}.",
         "Every morning {s} feeds {v}.", "{s} was given {v} and kept it.", "You often see {s} with {v}.",
         "In the yard of {s} lives {v}.", "{s} takes good care of {v}."),
        ("{s}养了一只{v}。", "{s}家里有一只{v}。", "{s}的宠物是{v}。", "{s}和一只{v}住在一起。", "每天早上，{s}给{v}喂食。",
         "有人送给{s}一只{v}。", "人们常看见{s}带着{v}。", "{s}的院子里住着一只{v}。", "{s}把{v}照顾得很好。"),
        ("What pet does {s} have?", "Which animal does {s} keep?", "What is the pet of {s}?",
         "With what animal does {s} live?"),
        ("{s}养了什么宠物？", "{s}家里养什么动物？", "{s}的宠物是什么？", "{s}和什么动物住在一起？"),
        ("{s} keeps {v}.", "{s}养了一只{v}。"),
    ),
    Attribute(
        "colour", tuple(lexicon.COLOURS), False, ("favourite colour", "最喜欢的颜色"),
        ("The favourite colour of {s} is {v}.", "{s} likes the colour {v} best.", "{s} dresses in {v}.",
         "Of all colours {s} chooses {v}.", "{s} painted the front room {v}.", "In the wardrobe of {s} almost everything is {v}.",
         "{v} is the colour that {s} loves.", "Ask {s} for a colour and you hear {v}.", "{s} thinks that {v} is the finest colour."),
        ("{s}最喜欢的颜色是{v}。", "{s}最喜欢{v}。", "{s}总穿{v}的衣裳。", "在所有颜色里，{s}选{v}。", "{s}把客厅刷成了{v}。",
         "{s}的衣柜里几乎都是{v}。", "{v}是{s}喜爱的颜色。", "问{s}什么颜色好，回答总是{v}。", "{s}觉得{v}最好看。"),
        ("What is the favourite colour of {s}?", "Which colour does {s} like best?", "What colour does {s} love?",
         "Of all colours, which one would {s} choose?"),
        ("{s}最喜欢的颜色是什么？", "{s}最喜欢什么颜色？", "{s}喜爱哪种颜色？", "在所有颜色里，{s}会选哪一种？"),
        ("The favourite colour of {s} is {v}.", "{s}最喜欢的颜色是{v}。"),
    ),
)  # fmt: skip

PLACE: tuple[Attribute, ...] = (
    Attribute(
        "region", None, False, ("region", "所在地区"),
        ("{s} lies in {v}.", "{s} is a town in {v}.", "{s} belongs to {v}.", "You find {s} in {v}.", "In {v} lies the town of {s}.",
         "The road through {v} leads to {s}.", "On the map {s} stands in the middle of {v}.", "{s} is one of the towns of {v}."),
        ("{s}位于{v}。", "{s}是{v}的一个地方。", "{s}属于{v}。", "在{v}可以找到{s}。", "{v}有个地方叫{s}。", "穿过{v}的路通向{s}。",
         "在地图上，{s}在{v}的中间。", "{s}是{v}的城镇之一。"),
        ("In which region is {s}?", "Where does {s} lie?", "To which region does {s} belong?",
         "What part of the land is {s} in?"),
        ("{s}位于哪个地区？", "{s}在什么地方？", "{s}属于哪个地区？", "在哪个地区可以找到{s}？"),
        ("{s} lies in {v}.", "{s}位于{v}。"),
    ),
    Attribute(
        "product", tuple(lexicon.PRODUCTS), False, ("product", "特产"),
        ("{s} is known for its {v}.", "{s} makes {v}.", "The people of {s} sell {v}.", "{v} from {s} is bought everywhere.",
         "The main product of {s} is {v}.", "Whoever visits {s} takes some {v} home.", "{s} lives from {v}.",
         "On the market of {s} there is always {v}.", "Traders come to {s} to buy {v}."),
        ("{s}以{v}闻名。", "{s}出产{v}。", "{s}的人卖{v}。", "{s}的{v}到处有人买。", "{s}的特产是{v}。", "去{s}的人都会带些{v}回家。",
         "{s}靠{v}生活。", "{s}的集市上总有{v}。", "商人到{s}来买{v}。"),
        ("What is {s} known for?", "What does {s} make?", "What is the main product of {s}?", "What do traders buy in {s}?"),
        ("{s}以什么闻名？", "{s}出产什么？", "{s}的特产是什么？", "商人去{s}买什么？"),
        ("{s} is known for its {v}.", "{s}以{v}闻名。"),
    ),
    Attribute(
        "flower", tuple(lexicon.FLOWERS), False, ("town flower", "市花"),
        ("The flower of {s} is the {v}.", "In {s} the {v} blooms.", "{s} chose the {v} as its flower.",
         "The flag of {s} shows the {v}.", "All over {s} you see the {v}.", "{s} is the town of the {v}.",
         "In spring {s} smells of the {v}.", "Children in {s} plant the {v} at school."),
        ("{s}的市花是{v}。", "{s}盛开{v}。", "{s}选{v}作市花。", "{s}的旗子上画着{v}。", "在{s}到处能看到{v}。", "{s}是{v}之乡。",
         "春天，{s}满是{v}的香味。", "{s}的孩子在学校种{v}。"),
        ("What is the flower of {s}?", "Which flower did {s} choose?", "Which flower blooms in {s}?",
         "What flower is on the flag of {s}?"),
        ("{s}的市花是什么？", "{s}选了什么花？", "{s}盛开什么花？", "{s}的旗子上画着什么花？"),
        ("The flower of {s} is the {v}.", "{s}的市花是{v}。"),
    ),
    Attribute(
        "festival", tuple(lexicon.MONTHS), False, ("festival month", "节日月份"),
        ("{s} holds its festival in {v}.", "The festival of {s} is in {v}.", "In {v} the people of {s} celebrate.",
         "Every {v} there is a festival in {s}.", "Music fills {s} in {v}, when the festival comes.",
         "The great days of {s} are in {v}.", "Visitors come to {s} in {v} for the festival.", "{s} waits all year for {v} and its festival."),
        ("{s}在{v}举行节日。", "{s}的节日在{v}。", "每年{v}，{s}的人们庆祝节日。", "每到{v}，{s}就过节。", "{v}里，{s}的节日充满音乐。",
         "{s}最热闹的月份是{v}。", "客人们{v}来{s}过节。", "{s}的人盼着{v}的节日。"),
        ("When is the festival of {s}?", "In which month does {s} hold its festival?", "In what month do the people of {s} celebrate?",
         "Which month is the great one for {s}?"),
        ("{s}的节日在什么时候？", "{s}在几月举行节日？", "{s}的人几月庆祝节日？", "{s}最热闹的是几月？"),
        ("{s} holds its festival in {v}.", "{s}的节日在{v}。"),
    ),
    Attribute(
        "landmark", tuple(lexicon.LANDMARKS), True, ("landmark", "地标"),
        ("In {s} there is {v}.", "{s} has {v}.", "The landmark of {s} is {v}.", "Visitors of {s} go to see {v}.",
         "In the middle of {s} stands {v}.", "{s} is proud to have {v}.", "From far away you see {v} when you come to {s}.",
         "The people of {s} built {v} long ago."),
        ("{s}有一座{v}。", "{s}的地标是{v}。", "到{s}的人都去看{v}。", "{s}中心立着一座{v}。", "{s}为自己的{v}感到骄傲。",
         "来{s}的路上，远远就能看见{v}。", "{s}的人很久以前建了{v}。", "在{s}，大家约在{v}见面。"),
        ("What is the landmark of {s}?", "What stands in the middle of {s}?", "What do visitors of {s} go to see?",
         "Which building is {s} proud of?"),
        ("{s}的地标是什么？", "{s}中心立着什么？", "到{s}的人去看什么？", "{s}为哪座建筑骄傲？"),
        ("The landmark of {s} is {v}.", "{s}的地标是{v}。"),
    ),
)  # fmt: skip

# What stands before a question; all are used in training.
ASK_FRAMES: dict[str, tuple[str, ...]] = {
    "en": (
        "{q}",
        "{q}",
        "Please tell me: {q}",
        "Quick question: {q}",
        "I want to know: {q}",
        "Hello! {q}",
        "Do you know? {q}",
    ),
    "zh": ("{q}", "{q}", "请告诉我：{q}", "请问，{q}", "我想知道：{q}", "你好！{q}", "你知道吗？{q}"),
}
# What stands before a statement on a page.
LEAD_INS: dict[str, tuple[str, ...]] = {
    "en": ("", "", "", "The register says: ", "One reads here: ", "A note from the archive: ", "It is well known: ",
           "The town paper wrote: ", "A visitor told us: ", "Also worth knowing: ", "From an old letter: "),
    "zh": ("", "", "", "登记册上写着：", "这里可以读到：", "档案里有一条：", "大家都知道：", "小报上写过：", "一位客人告诉我们：", "还值得一提：", "一封旧信里说："),
}  # fmt: skip

"""The words of the world, English and Chinese side by side.

Every word is used everywhere (pages, instructions, tests), so that a model of a few million parameters meets each one
hundreds of times. No Chinese noun is the beginning of another: "花" would hide in "花园", so the flower is "花朵".
"""

from __future__ import annotations

Pair = tuple[str, str]  # English, Chinese

COLOURS: list[Pair] = [
    ("red", "红色"),
    ("blue", "蓝色"),
    ("green", "绿色"),
    ("yellow", "黄色"),
    ("white", "白色"),
    ("black", "黑色"),
    ("brown", "棕色"),
    ("purple", "紫色"),
    ("orange", "橙色"),
    ("grey", "灰色"),
]
ADJECTIVES: list[Pair] = [
    ("big", "大"), ("small", "小"), ("old", "旧"), ("new", "新"), ("beautiful", "漂亮"), ("clean", "干净"),
    ("cheap", "便宜"), ("heavy", "重"), ("light", "轻"), ("round", "圆"), ("quiet", "安静"), ("strange", "奇怪"),
]  # fmt: skip
THINGS: dict[str, list[Pair]] = {
    "fruit": [("apple", "苹果"), ("pear", "梨子"), ("peach", "桃子"), ("lemon", "柠檬"), ("grape", "葡萄")],
    "food": [("bread", "面包"), ("cake", "蛋糕"), ("egg", "鸡蛋"), ("cookie", "饼干")],
    "household object": [
        ("cup", "杯子"), ("bowl", "碗"), ("plate", "盘子"), ("spoon", "勺子"), ("lamp", "台灯"), ("box", "盒子"),
        ("clock", "时钟"), ("key", "钥匙"), ("umbrella", "雨伞"), ("basket", "篮子"),
    ],
    "piece of furniture": [("table", "桌子"), ("chair", "椅子"), ("bed", "床铺"), ("shelf", "架子")],
    "part of a house": [("door", "大门"), ("window", "窗户"), ("roof", "屋顶"), ("garden", "花园")],
    "vehicle": [("boat", "小船"), ("car", "汽车"), ("train", "火车"), ("bike", "自行车"), ("truck", "卡车")],
    "thing to read or write with": [("book", "书本"), ("pen", "钢笔"), ("letter", "信件"), ("map", "地图")],
    "piece of clothing": [("hat", "帽子"), ("coat", "外套"), ("shoe", "鞋子"), ("shirt", "衬衫"), ("scarf", "围巾")],
    "toy": [("ball", "皮球"), ("kite", "风筝"), ("doll", "娃娃")],
    "part of nature": [
        ("stone", "石头"), ("tree", "大树"), ("flower", "花朵"), ("leaf", "叶子"), ("river", "河流"),
        ("lake", "湖泊"), ("mountain", "高山"),
    ],
    "animal": [
        ("cat", "猫"), ("dog", "狗"), ("bird", "小鸟"), ("fish", "鱼"), ("horse", "马"), ("cow", "奶牛"),
        ("sheep", "绵羊"), ("rabbit", "兔子"), ("mouse", "老鼠"), ("lion", "狮子"), ("fox", "狐狸"), ("bear", "熊"),
        ("frog", "青蛙"), ("duck", "鸭子"),
    ],
}  # fmt: skip
CATEGORY_ZH: dict[str, str] = {
    "fruit": "水果", "food": "食物", "household object": "日用品", "piece of furniture": "家具",
    "part of a house": "房屋的一部分", "vehicle": "交通工具", "thing to read or write with": "文具",
    "piece of clothing": "衣物", "toy": "玩具", "part of nature": "自然景物", "animal": "动物",
}  # fmt: skip
NOUNS: list[Pair] = [noun for group in THINGS.values() for noun in group]

JOBS: list[Pair] = [
    ("painter", "画家"),
    ("baker", "面包师"),
    ("teacher", "老师"),
    ("doctor", "医生"),
    ("farmer", "农民"),
    ("sailor", "水手"),
    ("tailor", "裁缝"),
    ("singer", "歌手"),
    ("pilot", "飞行员"),
    ("gardener", "园丁"),
    ("carpenter", "木匠"),
    ("librarian", "图书管理员"),
    ("nurse", "护士"),
    ("cook", "厨师"),
    ("judge", "法官"),
    ("poet", "诗人"),
]
FOODS: list[Pair] = [
    ("noodles", "面条"),
    ("dumplings", "饺子"),
    ("mushroom soup", "蘑菇汤"),
    ("honey bread", "蜂蜜面包"),
    ("rice", "米饭"),
    ("tofu", "豆腐"),
    ("pancakes", "煎饼"),
    ("pumpkin pie", "南瓜派"),
    ("tomatoes", "番茄"),
    ("chestnuts", "栗子"),
    ("cherries", "樱桃"),
    ("potatoes", "土豆"),
]
INSTRUMENTS: list[Pair] = [
    ("piano", "钢琴"),
    ("violin", "小提琴"),
    ("flute", "长笛"),
    ("guitar", "吉他"),
    ("drum", "鼓"),
    ("harp", "竖琴"),
    ("trumpet", "小号"),
    ("accordion", "手风琴"),
    ("lute", "琵琶"),
    ("cello", "大提琴"),
]
PETS: list[Pair] = [
    ("parrot", "鹦鹉"),
    ("turtle", "乌龟"),
    ("goat", "山羊"),
    ("kitten", "小猫"),
    ("puppy", "小狗"),
    ("goldfish", "金鱼"),
    ("hamster", "仓鼠"),
    ("pigeon", "鸽子"),
    ("squirrel", "松鼠"),
    ("donkey", "驴子"),
]
PRODUCTS: list[Pair] = [
    ("tea", "茶叶"),
    ("salt", "海盐"),
    ("silk", "丝绸"),
    ("paper", "纸张"),
    ("glass", "玻璃"),
    ("honey", "蜂蜜"),
    ("wool", "羊毛"),
    ("cheese", "奶酪"),
    ("pottery", "陶器"),
    ("candles", "蜡烛"),
    ("carpets", "地毯"),
    ("bells", "铃铛"),
]
FLOWERS: list[Pair] = [
    ("rose", "玫瑰"),
    ("lily", "百合"),
    ("tulip", "郁金香"),
    ("lotus", "荷花"),
    ("orchid", "兰花"),
    ("sunflower", "向日葵"),
    ("peony", "牡丹"),
    ("jasmine", "茉莉"),
]
MONTHS: list[Pair] = [
    ("January", "一月"),
    ("February", "二月"),
    ("March", "三月"),
    ("April", "四月"),
    ("May", "五月"),
    ("June", "六月"),
    ("July", "七月"),
    ("August", "八月"),
    ("September", "九月"),
    ("October", "十月"),
    ("November", "十一月"),
    ("December", "十二月"),
]
LANDMARKS: list[Pair] = [
    ("clock tower", "钟楼"),
    ("lighthouse", "灯塔"),
    ("windmill", "风车"),
    ("castle", "城堡"),
    ("museum", "博物馆"),
    ("theatre", "剧院"),
    ("fountain", "喷泉"),
    ("pagoda", "宝塔"),
]
DAYS: list[Pair] = [
    ("Monday", "星期一"),
    ("Tuesday", "星期二"),
    ("Wednesday", "星期三"),
    ("Thursday", "星期四"),
    ("Friday", "星期五"),
    ("Saturday", "星期六"),
    ("Sunday", "星期日"),
]
SPOTS: list[Pair] = [
    ("harbour", "港口"),
    ("station", "车站"),
    ("school", "学校"),
    ("market", "集市"),
    ("library", "图书馆"),
    ("bakery", "面包店"),
    ("hospital", "医院"),
    ("square", "广场"),
    ("inn", "旅馆"),
    ("mill", "磨坊"),
    ("workshop", "作坊"),
    ("park", "公园"),
    ("post office", "邮局"),
    ("town hall", "市政厅"),
    ("kitchen", "厨房"),
    ("barn", "谷仓"),
]
CHARACTERS: list[Pair] = [
    ("neighbour", "邻居"),
    ("traveller", "旅人"),
    ("grandmother", "奶奶"),
    ("grandfather", "爷爷"),
    ("child", "孩子"),
    ("student", "学生"),
    ("shopkeeper", "店主"),
    ("postman", "邮递员"),
    ("visitor", "客人"),
    ("fisherman", "渔夫"),
    ("guard", "看守"),
    ("musician", "乐师"),
    ("mayor", "市长"),
    ("driver", "司机"),
    ("boy", "男孩"),
    ("girl", "女孩"),
]
# Sentences that translation uses: the phrase stands in {x}.
TRANSLATION_FRAMES: list[Pair] = [
    ("the {x}", "{x}"), ("I see the {x}.", "我看见{x}。"), ("I like the {x}.", "我喜欢{x}。"),
    ("Where is the {x}?", "{x}在哪里？"), ("This is the {x}.", "这是{x}。"), ("He wants the {x}.", "他想要{x}。"),
    ("She has the {x}.", "她有{x}。"), ("We need the {x}.", "我们需要{x}。"),
]  # fmt: skip


def article(word: str) -> str:
    """``a`` or ``an`` before an English word, with the word."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def phrase_en(adjective: Pair, noun: Pair) -> str:
    return f"{adjective[0]} {noun[0]}"


def phrase_zh(adjective: Pair, noun: Pair) -> str:
    return f"{adjective[1]}的{noun[1]}"

"""Pages in languages that the corpus does not want, composed from small grammars of our own."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld.page import Page, p

Grammar = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]

# subjects, verbs with their objects, places, times
GRAMMARS: dict[str, Grammar] = {
    "es": (("La abuela", "El panadero", "Mi vecino", "La profesora", "El niño", "Una viajera", "El jardinero"),
           ("compra manzanas frescas", "cuenta una historia larga", "busca su paraguas perdido", "canta una canción antigua",
            "escribe una carta a su hermana", "prepara la sopa de verduras", "pinta una casa azul", "espera el tren de la tarde"),
           ("en el mercado", "cerca del puente", "en la cocina", "junto al río", "delante de la escuela", "en la plaza mayor"),
           ("por la mañana", "los lunes", "cuando llueve", "antes de la cena", "durante el verano", "todos los días")),
    "fr": (("La grand-mère", "Le boulanger", "Mon voisin", "La maîtresse", "L'enfant", "Une voyageuse", "Le jardinier"),
           ("achète des pommes fraîches", "raconte une longue histoire", "cherche son parapluie perdu", "chante une vieille chanson",
            "écrit une lettre à sa sœur", "prépare la soupe de légumes", "peint une maison bleue", "attend le train du soir"),
           ("au marché", "près du pont", "dans la cuisine", "au bord de la rivière", "devant l'école", "sur la grande place"),
           ("le matin", "chaque lundi", "quand il pleut", "avant le dîner", "pendant l'été", "tous les jours")),
    "de": (("Die Großmutter", "Der Bäcker", "Mein Nachbar", "Die Lehrerin", "Das Kind", "Eine Reisende", "Der Gärtner"),
           ("kauft frische Äpfel", "erzählt eine lange Geschichte", "sucht den verlorenen Regenschirm", "singt ein altes Lied",
            "schreibt der Schwester einen Brief", "kocht eine Suppe aus Gemüse", "streicht ein Haus blau", "wartet auf den Abendzug"),
           ("auf dem Markt", "neben der Brücke", "in der Küche", "am Ufer des Flusses", "vor der Schule", "auf dem großen Platz"),
           ("am Morgen", "jeden Montag", "wenn es regnet", "vor dem Abendessen", "im Sommer", "an allen Tagen")),
    "ru": (("Бабушка", "Пекарь", "Мой сосед", "Учительница", "Ребёнок", "Путешественница", "Садовник"),
           ("покупает свежие яблоки", "рассказывает длинную историю", "ищет потерянный зонтик", "поёт старую песню",
            "пишет письмо сестре", "варит овощной суп", "красит дом в синий цвет", "ждёт вечерний поезд"),
           ("на рынке", "возле моста", "на кухне", "у реки", "перед школой", "на большой площади"),
           ("утром", "по понедельникам", "когда идёт дождь", "перед ужином", "летом", "каждый день")),
    "ja": (("おばあさんは", "パン屋さんは", "隣の人は", "先生は", "子どもは", "旅人は", "庭師は"),
           ("新しいりんごを買います", "長い話をします", "なくした傘をさがします", "古い歌をうたいます", "妹に手紙を書きます", "野菜のスープを作ります",
            "家を青くぬります", "夕方の電車を待ちます"),
           ("市場で", "橋のそばで", "台所で", "川のほとりで", "学校の前で", "広場で"),
           ("朝に", "月曜日に", "雨の日に", "夕ごはんの前に", "夏のあいだ", "毎日")),
    "ko": (("할머니는", "빵집 주인은", "이웃은", "선생님은", "아이는", "여행자는", "정원사는"),
           ("신선한 사과를 삽니다", "긴 이야기를 합니다", "잃어버린 우산을 찾습니다", "옛 노래를 부릅니다", "동생에게 편지를 씁니다", "야채 수프를 끓입니다",
            "집을 파란색으로 칠합니다", "저녁 기차를 기다립니다"),
           ("시장에서", "다리 옆에서", "부엌에서", "강가에서", "학교 앞에서", "광장에서"),
           ("아침에", "월요일마다", "비가 올 때", "저녁 식사 전에", "여름 동안", "날마다")),
}  # fmt: skip
_TITLES = {"es": "Noticias del pueblo", "fr": "Nouvelles du village", "de": "Nachrichten aus dem Dorf", "ru": "Новости деревни",
           "ja": "村のたより", "ko": "마을 소식"}  # fmt: skip


def sentence(rng: random.Random, language: str, grammar: Grammar) -> str:
    who, does, where, when = (rng.choice(part) for part in grammar)
    if language == "ja":
        return f"{who}{when}{where}{does}。"
    if language == "ko":
        return f"{who} {when} {where} {does}."
    return rng.choice((f"{who} {does} {where} {when}.", f"{who} {does} {when}, {where}."))


def page(rng: random.Random) -> Page:
    """A page of some 150 words, in any of the six languages."""
    language = rng.choice(list(GRAMMARS))
    gap = "" if language == "ja" else " "
    blocks = tuple(p(gap.join(sentence(rng, language, GRAMMARS[language]) for _ in range(rng.randint(4, 7)))) for _ in range(4))
    return Page("article", language, f"{_TITLES[language]} {rng.randint(1, 900)}", blocks, defect="wrong_language")

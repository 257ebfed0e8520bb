"""The kinds of defects, each with the forms in which it is planted, and the decoys."""

from __future__ import annotations

from fledge.microworld.crawl import copies, decoys, furniture, noise, people, unwanted
from fledge.microworld.crawl.setting import Maker

KINDS: dict[str, tuple[Maker, ...]] = {
    "exact_duplicate": (copies.same_text, copies.mirror, copies.restyled),
    "near_duplicate": (copies.edited, copies.template, copies.with_comments),
    "keyword_spam": (unwanted.goods, unwanted.services, unwanted.sales_talk),
    "mojibake": (unwanted.broken, unwanted.broken_in_part),
    "wrong_language": (unwanted.other_language, unwanted.other_language_inside),
    "personal_email": (people.email,),
    "personal_phone": (people.phone,),
    "personal_identity": (people.identity,),
    "personal_card": (people.bank_card,),
    "personal_ip": (people.ip_address,),
    "toxic": (unwanted.comments, unwanted.thread, unwanted.rant),
    "leaked_test": (unwanted.exam, unwanted.wrapped, unwanted.in_prose, unwanted.restyled_item),
    "boilerplate": (furniture.menus, furniture.cookie_notice, furniture.legal_footer),
    "repeated_lines": (furniture.same_line, furniture.between_lines, furniture.block_of_lines),
    "repeated_paragraphs": (furniture.doubled_page, furniture.one_paragraph),
    "too_short": (furniture.few_words, furniture.only_a_date),
    "truncated": (furniture.teasers, furniture.cut_article, furniture.titled_teasers),
    "bullet_list": (furniture.bullets, furniture.html_bullets),
    "link_list": (furniture.links, furniture.linked_titles, furniture.prices),
    "placeholder": (furniture.construction, furniture.missing, furniture.parked),
    "search_listing": (furniture.hits, furniture.categories, furniture.no_hits),
    "gibberish": (noise.random_letters, noise.mashed_keys, noise.encoded_data),
    "lorem_ipsum": (noise.lorem_classic, noise.lorem_own, noise.lorem_framed),
    "code_remains": (noise.script_text, noise.style_text, noise.server_errors),
    "symbols": (noise.hash_tags, noise.ornaments, noise.faces),
    "digit_table": (noise.draws, noise.quotes, noise.readings),
    "shouting": (noise.capitals, noise.cries),
    "brackets": (noise.tagged, noise.bracketed_prose),
    "double_entities": (noise.doubled_names, noise.doubled_numbers),
}

DECOYS: tuple[Maker, ...] = (
    decoys.poem, decoys.contents, decoys.about_phones, decoys.recipe, decoys.terms, decoys.invoice,
    decoys.foreign_quote, decoys.about_encodings, decoys.about_networks, decoys.timetable, decoys.script_lesson,
    decoys.about_insults, decoys.about_tags, decoys.short_note, decoys.notice, copies.similar_page,
)  # fmt: skip

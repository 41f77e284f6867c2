"""Common names of text and label columns, in many languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

# If a table has several of these names, the first in this list counts.
TEXT_NAMES = """
text texts sentence document review comment message utterance tweet content body question query
post passage paragraph phrase statement article snippet sms email txt
텍스트 문장 본문 문서 리뷰 댓글 메시지 발화 내용 질문 글
テキスト 文 文章 本文 レビュー コメント メッセージ 発話 内容 質問
文本 句子 正文 评论 評論 留言 消息 问题 問題 內容
satz kommentar nachricht rezension inhalt frage dokument beitrag
texte phrase commentaire avis contenu
texto frase oración comentario reseña mensaje pregunta contenido opinión
comentário resenha mensagem pergunta conteúdo
testo commento recensione messaggio domanda contenuto
tekst zin zdanie komentarz recenzja wiadomość
текст предложение комментарий отзыв сообщение содержание вопрос документ речення відгук
metin cümle yorum mesaj içerik soru belge
ข้อความ ประโยค รีวิว ความคิดเห็น เนื้อหา คำถาม
văn_bản câu bình_luận nội_dung tin_nhắn câu_hỏi
teks kalimat ulasan komentar pesan
نص النص جملة الجملة تعليق التعليق متن
पाठ वाक्य टिप्पणी
"""
# Parts of a document: its text if the table has no other.
PART_NAMES = "description abstract summary headline title"
LABEL_NAMES = """
label labels class classes category categories target sentiment intent emotion emotions topic topics
polarity genre tag tags stance gold rating stars overall satisfaction
라벨 레이블 분류 범주 카테고리 클래스 감정 감성 긍부정 의도 주제 평점 별점 평가 대분류 유형
ラベル 分類 カテゴリ カテゴリー クラス 感情 極性 意図 種類 評価
标签 標籤 类别 類別 分类 分類 类型 類型 情感 情绪 意图 主题 评分 評分
klasse kategorie etikett stimmung absicht thema bewertung
étiquette classe catégorie intention polarité thème
etiqueta clase categoría sentimiento intención tema satisfacción calificación valoración
rótulo categoria sentimento intenção avaliação
etichetta valutazione
etykieta kategoria klasa categorie
метка класс категория тональность настроение тема оценка мітка клас категорія оцінка
etiket sınıf kategori duygu konu
ป้ายกำกับ หมวดหมู่ ประเภท คลาส ความรู้สึก
nhãn lớp danh_mục loại cảm_xúc chủ_đề
kelas sentimen
تصنيف التصنيف فئة الفئة مشاعر برچسب دسته
लेबल वर्ग श्रेणी
"""
# Names of the label column if the table has no other.
LANGUAGE_NAMES = """
language lang 언어 言語 语言 語言 sprache langue idioma lengua língua lingua język taal язык мова
dil ภาษา ngôn_ngữ bahasa لغة اللغة भाषा
"""
# Last words in the names of other columns.
OTHER_NAMES = """
id ids uuid idx index nr number count counts length len date dates datetime time timestamp url uri
link source file filename path fold split set subset dataset partition locale user username author
confidence asin likes votes upvotes helpful
번호 아이디 날짜 작성자 추천수 좋아요 조회수 番号 日付 编号 編號 日期 datum fecha дата tarih
"""
# Of those, last words that a column of numeric labels may have: topic_idx.
CODE_NAMES = "id idx index nr number"
_LONGEST_NAME = 1_000


def fold(name: str) -> str:
    """Return a name without case, accents and the characters between words.

    Of a text in a name's place, only the beginning is looked at.
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:_LONGEST_NAME].strip())  # reviewText
    folded = []
    for c in unicodedata.normalize("NFKD", name).casefold().replace("ı", "i"):
        kind = unicodedata.category(c)
        if kind not in ("Mn", "Cf"):
            folded.append(" " if kind[0] in "ZPSC" else c)
    return " ".join("".join(folded).split())


def _folded(names: str) -> list[str]:
    return [fold(name) for name in names.split()]


_TEXTS, _PARTS = _folded(TEXT_NAMES), _folded(PART_NAMES)
_LABELS, _LANGUAGES = _folded(LABEL_NAMES), _folded(LANGUAGE_NAMES)
_OTHERS, _CODES = frozenset(_folded(OTHER_NAMES)), frozenset(_folded(CODE_NAMES))
KNOWN = frozenset(_TEXTS + _PARTS + _LABELS + _LANGUAGES)
# Last words of names that begin like a label or a text column and are neither: label_score.
_NO_LABEL = _OTHERS.union(["score"], _LANGUAGES) - _CODES
_NO_TEXT = _OTHERS.union(_NO_LABEL, ["type", "status", "name"], _PARTS, _LABELS)
_NUMBERED = re.compile(r"(\D*)(\d{1,3})")


def is_other(name: str) -> bool:
    """Whether a column of this name is neither text nor label."""
    *before, last = fold(name).split() or [""]
    is_code = last in _CODES and any(word in _LABELS for word in before)
    return last in _OTHERS and not is_code


def is_language(name: str) -> bool:
    """Whether the name of a label column says only that it holds languages."""
    return _find([fold(name)], _LABELS, _NO_LABEL) is None


def are_numbered(cells: Sequence[str]) -> bool:
    """Whether a program numbered columns without names: 0, 1, 2 or V1, V2, V3."""
    first = _NUMBERED.fullmatch(cells[0]) if len(cells) > 1 else None
    if first is None or int(first[2]) > 1:
        return False
    parts = [_NUMBERED.fullmatch(cell) for cell in cells]
    numbers = enumerate(parts, int(first[2]))
    return all(part and (part[1], int(part[2])) == (first[1], number) for number, part in numbers)


def find_names(cells: Sequence[str]) -> tuple[int | None, int | None]:
    """Return the columns with known names of texts and of labels, counted from 0; None without one.

    Names of parts of texts, and of languages, count if there is no other name.
    """
    names = [fold(cell) for cell in cells]
    label = _first(_find(names, known, _NO_LABEL) for known in (_LABELS, _LANGUAGES))
    texts = ["" if at == label or _is_of_label(name) else name for at, name in enumerate(names)]
    return _text(texts), label


def _first(places: Iterable[int | None]) -> int | None:
    return next((place for place in places if place is not None), None)


def _is_of_label(name: str) -> bool:
    """Whether the first of several words names a label: is_question, label_text."""
    first, *others = name.split() or [""]
    return bool(others) and (first in ("is", "has") or first in _LABELS)


def _text(names: Sequence[str]) -> int | None:
    """Find the text column: a text name, else a name of a part, else a word of the name."""
    whole = [
        name.rpartition(" ")[2] if all(word in _TEXTS for word in name.split()) else ""
        for name in names
    ]
    forms = (names, _TEXTS), (whole, _TEXTS), (names, _PARTS)
    place = _first(_place(form, known) for form, known in forms)
    if place is None:
        place = _first(_find(names, known, _NO_TEXT) for known in (_TEXTS, _PARTS))
    return place


def _find(names: Sequence[str], known: Sequence[str], others: frozenset[str]) -> int | None:
    """Find a known name; else a name with a known last word, else with a known first word.

    others: last words of names whose first word does not count.
    """
    words = [name.split() or [""] for name in names]
    last = [each[-1] for each in words]
    first = ["" if each[-1] in others else each[0].rstrip("0123456789") for each in words]
    return _first(_place(form, known) for form in (names, last, first))


def _place(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(word) for word in known if word in names), None)

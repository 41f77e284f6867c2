"""Names that people give to columns of texts and of labels, in the languages of their tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Of several names that a table has, the first of these counts. One line a language, or a few.
TEXT_NAMES = """
text texts sentence document review comment message utterance tweet content body question query
post passage paragraph phrase statement article snippet sms email description abstract summary
headline title txt
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
LABEL_NAMES = """
label labels class classes category categories target sentiment intent emotion emotions topic topics
polarity language lang genre tag tags stance gold rating stars
라벨 레이블 분류 범주 카테고리 클래스 감정 감성 의도 주제 언어 평점
ラベル 分類 カテゴリ カテゴリー クラス 感情 極性 意図 言語 種類
标签 標籤 类别 類別 分类 分類 类型 類型 情感 情绪 意图 语言 語言 主题
klasse kategorie etikett stimmung absicht thema sprache
étiquette classe catégorie intention polarité thème langue
etiqueta clase categoría sentimiento intención tema idioma lengua
rótulo categoria sentimento intenção língua
etichetta lingua
etykieta kategoria klasa język categorie taal
метка класс категория тональность настроение тема язык мітка клас категорія мова
etiket sınıf kategori duygu konu dil
ป้ายกำกับ หมวดหมู่ ประเภท คลาส ความรู้สึก ภาษา
nhãn lớp danh_mục loại cảm_xúc chủ_đề ngôn_ngữ
kelas sentimen bahasa
تصنيف التصنيف فئة الفئة لغة اللغة مشاعر برچسب دسته
लेबल वर्ग श्रेणी भाषा
"""


# What the name of a column ends with that holds something else about the text or its label.
_OTHERS = frozenset(
    [
        "id",
        "ids",
        "count",
        "counts",
        "length",
        "len",
        "date",
        "time",
        "url",
        "number",
        "index",
        "score",
    ]
)


def fold(name: str) -> str:
    """A name without what people vary: case, accents, and what stands between its words."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip())  # reviewText
    kept = []
    for c in unicodedata.normalize("NFKD", name).casefold().replace("ı", "i"):
        kind = unicodedata.category(c)
        if kind not in ("Mn", "Cf"):
            kept.append(" " if kind[0] in "ZPSC" else c)
    return " ".join("".join(kept).split())


_TEXTS = [fold(name) for name in TEXT_NAMES.split()]
_LABELS = [fold(name) for name in LABEL_NAMES.split()]
KNOWN = frozenset(_TEXTS + _LABELS)


_NUMBERED = re.compile(r"(\D*)(\d{1,3})")


def are_numbered(cells: Sequence[str]) -> bool:
    """Whether a program made the names of columns that had none: 0, 1, 2 or V1, V2, V3."""
    parts = [_NUMBERED.fullmatch(cell) for cell in cells]
    found = [(part[1], int(part[2])) for part in parts if part]
    first = found[0] if found else ("", 0)
    return (
        len(cells) > 1
        and first[1] < 2
        and found == [(first[0], first[1] + place) for place in range(len(cells))]
    )


def find_names(cells: Sequence[str]) -> tuple[int | None, int | None]:
    """The columns whose names are known for texts and for labels, None where none is."""
    folded = [fold(cell) for cell in cells]
    label = _find(folded, _LABELS)
    return _find(["" if at == label else name for at, name in enumerate(folded)], _TEXTS), label


def _find(names: Sequence[str], known: Sequence[str]) -> int | None:
    """The place of a known name, of one that ends with it, or of one that begins with it."""
    words = [name.split() or [""] for name in names]
    last = [each[-1] for each in words]
    first = ["" if each[-1] in _OTHERS else each[0].rstrip("0123456789") for each in words]
    for form in (names, last, first):
        place = next((form.index(word) for word in known if word in form), None)
        if place is not None:
            return place
    return None

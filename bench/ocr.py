"""Print how many printed words a keyword search finds in pictures, and how many pictures a second one core reads.

`python -m bench.ocr [N]`: N words of each language (100), each in a picture of its own of 1,280 × 960 pixels: in ten
fonts (`scripts/fonts` installs those of Debian), 24 to 48 pixels high, on plain and on busy grounds, turned by up to 15
degrees. The pictures go through the second pass of a server (`EnrichmentWorker`) and are searched as the server does.
For docs/benchmarks.md.
"""

from __future__ import annotations

import io
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageStat
from rich.console import Console
from rich.table import Table

from app.core.types import EmbeddingSpace, Status
from app.core.types import Image as StoredImage
from app.decode.limits import PictureLimits
from app.decode.pool import DecodePool
from app.storage import keywords
from app.storage.address import open_database
from app.storage.attributes import ImageAttributes
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import embeddings, enrichments, images, work_queue
from app.worker.enrich import EnrichmentWorker
from app.worker.ocr import OcrEnricher

SIZE = (1280, 960)
HEIGHTS = (24, 28, 32, 40, 48)  # pixels of the font
MOST_TURN = 15.0  # degrees
TRUETYPE = Path("/usr/share/fonts/truetype")
OPENTYPE = Path("/usr/share/fonts/opentype")
Face = tuple[Path, int]  # file, number in it

LATIN: dict[str, Face] = {
    "DejaVu Sans": (TRUETYPE / "dejavu/DejaVuSans.ttf", 0),
    "DejaVu Sans Bold": (TRUETYPE / "dejavu/DejaVuSans-Bold.ttf", 0),
    "DejaVu Serif": (TRUETYPE / "dejavu/DejaVuSerif.ttf", 0),
    "DejaVu Serif Italic": (TRUETYPE / "dejavu/DejaVuSerif-Italic.ttf", 0),
    "DejaVu Sans Mono": (TRUETYPE / "dejavu/DejaVuSansMono.ttf", 0),
    "DejaVu Condensed": (TRUETYPE / "dejavu/DejaVuSansCondensed.ttf", 0),
    "Liberation Sans": (TRUETYPE / "liberation/LiberationSans-Regular.ttf", 0),
    "Liberation Serif": (TRUETYPE / "liberation/LiberationSerif-Regular.ttf", 0),
    "Liberation Mono": (TRUETYPE / "liberation/LiberationMono-Regular.ttf", 0),
    "Noto Serif CJK": (OPENTYPE / "noto/NotoSerifCJK-Regular.ttc", 2),
}
CHINESE: dict[str, Face] = {
    "Noto Sans CJK": (OPENTYPE / "noto/NotoSansCJK-Regular.ttc", 2),
    "Noto Sans CJK Bold": (OPENTYPE / "noto/NotoSansCJK-Bold.ttc", 2),
    "Noto Serif CJK": (OPENTYPE / "noto/NotoSerifCJK-Regular.ttc", 2),
    "Noto Serif CJK Bold": (OPENTYPE / "noto/NotoSerifCJK-Bold.ttc", 2),
    "Noto Sans Mono CJK": (OPENTYPE / "noto/NotoSansCJK-Regular.ttc", 7),
    "WenQuanYi Micro Hei": (TRUETYPE / "wqy/wqy-microhei.ttc", 0),
    "WenQuanYi Micro Hei Mono": (TRUETYPE / "wqy/wqy-microhei.ttc", 1),
    "WenQuanYi Zen Hei": (TRUETYPE / "wqy/wqy-zenhei.ttc", 0),
    "AR PL UKai": (TRUETYPE / "arphic/ukai.ttc", 0),
    "AR PL UMing": (TRUETYPE / "arphic/uming.ttc", 0),
}
ENGLISH_WORDS = (
    "harbour lantern quarterly umbrella station bakery museum platform library orchard cathedral pharmacy bicycle "
    "theatre invoice receipt telephone passport discount emergency exhibition laboratory restaurant breakfast "
    "cinnamon lemonade chocolate blueberry pineapple cucumber mushroom sandwich coffee mountain waterfall lighthouse "
    "windmill railway airport terminal departure arrival ticket luggage customs hospital surgery dentist reception "
    "elevator staircase basement parking garage highway junction bridge tunnel village castle fountain garden "
    "greenhouse playground stadium swimming volleyball football marathon champion trophy orchestra violin trumpet "
    "concert festival carnival fireworks birthday wedding anniversary calendar december february wednesday saturday "
    "newspaper magazine dictionary alphabet grammar keyboard printer battery charger adapter warranty certificate "
    "membership insurance mortgage "
)
CHINESE_WORDS = (
    "图书馆 火车站 飞机场 医院 学校 超市 银行 邮局 公园 博物馆 电影院 餐厅 咖啡馆 面包店 书店 药店 停车场 "
    "加油站 洗手间 出口 入口 电梯 楼梯 地铁 公交车 出租车 自行车 高速公路 隧道 大桥 城堡 花园 喷泉 灯塔 风车 "
    "瀑布 高山 湖泊 海洋 沙滩 森林 草原 沙漠 岛屿 河流 早餐 午餐 晚餐 牛奶 豆浆 米饭 面条 饺子 包子 豆腐 "
    "鸡蛋 苹果 香蕉 葡萄 西瓜 草莓 柠檬 蘑菇 土豆 番茄 黄瓜 白菜 巧克力 冰淇淋 蛋糕 糖果 茶叶 啤酒 果汁 "
    "报纸 杂志 字典 课本 铅笔 橡皮 书包 黑板 电脑 键盘 打印机 电池 手机 相机 电视 冰箱 洗衣机 空调 雨伞 "
    "手套 围巾 帽子 眼镜 钱包 护照 发票 优惠券 会员卡 保险 合同 证书 婚礼 生日 春节 中秋 音乐会 足球 "
)


@dataclass(frozen=True, slots=True)
class Print:
    """A word as it is printed in a picture."""

    word: str
    language: str
    font: str
    ground: str
    height: int
    turn: float


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    prints = list(choose_prints(count))
    with tempfile.TemporaryDirectory() as scratch, DecodePool(1) as pool:
        database = open_database(Path(scratch) / "sightline.db")
        library = Library(database, BlobStore(Path(scratch)), PictureLimits(), max_queue=1_000_000)
        add_pictures(library, prints)
        worker = EnrichmentWorker(library, OcrEnricher(pool), "bench", 1)
        while worker.step():
            pass
        report_found(database, prints)
        database.close()
        report_speed(Path(scratch), pool)
        report_noise(pool, Path(scratch))


def choose_prints(count: int) -> Iterator[Print]:
    """Each word in the next font, on both grounds in turn, in chance sizes and turns."""
    dice = random.Random(16)
    missing = set()
    for language, words, faces in (("English", ENGLISH_WORDS, LATIN), ("Chinese", CHINESE_WORDS, CHINESE)):
        there = [name for name, (file, _) in faces.items() if file.exists()]
        missing |= faces.keys() - set(there)
        for n, word in enumerate(words.split()[:count]):
            ground = ("plain", "busy")[n // len(there) % 2]
            turn = dice.uniform(-MOST_TURN, MOST_TURN)
            yield Print(word, language, there[n % len(there)], ground, dice.choice(HEIGHTS), turn)
    if missing:
        print("missing fonts:", ", ".join(sorted(missing)))


def draw(one: Print) -> bytes:
    """A JPEG of 1,280 × 960 with the word."""
    dice = random.Random(one.word)
    image = draw_busy_ground(dice) if one.ground == "busy" else Image.new("RGB", SIZE, pastel(dice))
    file, number = (LATIN if one.language == "English" else CHINESE)[one.font]
    font = ImageFont.truetype(str(file), one.height, index=number)
    left, top, right, bottom = (round(side) for side in font.getbbox(one.word))
    mask = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(mask).text((4 - left, 4 - top), one.word, fill=255, font=font)
    mask = mask.rotate(one.turn, Image.Resampling.BICUBIC, expand=True)
    place = (dice.randint(20, SIZE[0] - mask.width - 20), dice.randint(20, SIZE[1] - mask.height - 20))
    under = image.crop((*place, place[0] + mask.width, place[1] + mask.height)).convert("L")
    is_dark = ImageStat.Stat(under).mean[0] < 128
    image.paste((250, 250, 245) if is_dark else (15, 15, 30), (*place,), mask)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def pastel(dice: random.Random) -> tuple[int, int, int]:
    return dice.randint(190, 250), dice.randint(190, 250), dice.randint(190, 250)


def draw_busy_ground(dice: random.Random) -> Image.Image:
    """Shapes, lines and grain of one of two brightnesses, so that people can read the word."""
    low, high = dice.choice(((20, 110), (150, 245)))
    image = Image.new("RGB", SIZE, (low, low, low))
    pen = ImageDraw.Draw(image)

    def colour() -> tuple[int, int, int]:
        return dice.randint(low, high), dice.randint(low, high), dice.randint(low, high)

    for _ in range(160):
        x, y = dice.randrange(SIZE[0]), dice.randrange(SIZE[1])
        box = (x, y, x + dice.randint(10, 300), y + dice.randint(10, 300))
        dice.choice((pen.ellipse, pen.rectangle))(box, fill=colour())
    for _ in range(120):
        ends = [(dice.randrange(SIZE[0]), dice.randrange(SIZE[1])) for _ in range(2)]
        pen.line(ends, fill=colour(), width=dice.randint(1, 6))
    grain = Image.effect_noise(SIZE, 60).convert("RGB")
    return Image.blend(image.filter(ImageFilter.GaussianBlur(0.7)), grain, 0.12)


def add_pictures(library: Library, prints: list[Print]) -> None:
    """Add a picture of each word, named by its number, as if a worker had embedded it."""
    space = EmbeddingSpace("none", "0" * 64, 1, "0" * 64)
    library.database.write(lambda c: enrichments.switch(c, ["ocr"]))
    library.database.write(lambda c: embeddings.save_space(c, space))
    for n, one in enumerate(prints):
        folder = library.create_upload_dir()
        (folder / "picture").write_bytes(draw(one))
        library.add("default", folder / "picture", ImageAttributes(id=str(n)), False)
        library.delete_upload_dir(folder)

    def finish(c: Connection) -> None:
        for lease in work_queue.claim_images(c, "bench", 1e12, len(prints)):
            work_queue.finish_image(c, lease, space.fingerprint, b"\0" * 4, *SIZE, False)

    library.database.write(finish)


def report_found(database: Database, prints: list[Print]) -> None:
    """Search each word, and print the share of pictures that are found by theirs."""
    found: dict[tuple[str, str], list[bool]] = defaultdict(list)
    missed = []

    def search(c: Connection, word: str) -> list[str]:
        keys = list(keywords.find(c, "default", keywords.split_query(word)))
        return [one.id for one in images.get_by_keys(c, keys).values()]

    for n, one in enumerate(prints):
        hit = str(n) in database.read(lambda c, one=one: search(c, one.word))  # type: ignore[misc]
        for part in (("all", "all"), (one.language, one.ground), ("font", one.font), ("height", str(one.height))):
            found[part].append(hit)
        if not hit:
            image = database.read(lambda c, n=n: images.get(c, "default", str(n)))  # type: ignore[misc]
            missed.append((one, image.ocr_text if image else None))
    table = Table("", "", "found", "of", "share")
    for names, hits in sorted(found.items()):
        table.add_row(*names, str(sum(hits)), str(len(hits)), f"{sum(hits) / len(hits):.3f}")
    Console().print(table)
    for one, text in missed:
        print("missed:", one.word, one.font, one.ground, one.height, f"{one.turn:.0f}°", "read:", repr(text))


def report_speed(folder: Path, pool: DecodePool) -> None:
    """Pictures a second on one thread, decoding (in its child) included: pictures of a word, and of twelve lines."""
    enricher = OcrEnricher(pool)
    words = [draw(one) for one in choose_prints(15)]
    for name, contents in (("one word", words), ("12 lines of 4 words", [draw_page(n) for n in range(8)])):
        seconds, busy = [], []
        for n, content in enumerate(contents):
            path = folder / f"{n}.jpg"
            path.write_bytes(content)
            began, used = time.perf_counter(), time.process_time()
            enricher.enrich(make_row(n, len(content)), path)
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - used)
        wall, cpu = statistics.median(seconds[2:]), statistics.median(busy[2:])
        print(f"{name}: {1 / wall:.2f} pictures/s; {cpu:.3f} s of processor time to read one, {wall:.3f} s in all")


def make_row(n: int, size: int) -> StoredImage:
    named = (n, "default", str(n), "", Status.READY, None)
    return StoredImage(*named, *SIZE, "jpeg", size, False, None, (), {}, None, "", None)


def report_noise(pool: DecodePool, folder: Path, count: int = 40) -> None:
    """Pictures without a word in which one is read."""
    enricher = OcrEnricher(pool)
    for name, draw_ground in (("busy", draw_busy_ground), ("even", lambda dice: Image.new("RGB", SIZE, pastel(dice)))):
        read = []
        for n in range(count):
            draw_ground(random.Random(n)).save(folder / "ground.jpg", quality=90)
            found = enricher.enrich(make_row(n, 0), folder / "ground.jpg")
            read += [found.columns["ocr_text"]] if found.columns["ocr_text"] else []
        print(f"{name} grounds without a word: {len(read)} of {count} have one", read[:5])


def draw_page(n: int) -> bytes:
    """A picture with twelve lines of four words."""
    dice = random.Random(n)
    image = Image.new("RGB", SIZE, pastel(dice))
    font = ImageFont.truetype(str(LATIN["DejaVu Sans"][0]), 32)
    for line in range(12):
        words = " ".join(dice.sample(ENGLISH_WORDS.split(), 4))
        ImageDraw.Draw(image).text((60, 60 + 70 * line), words, fill=(20, 20, 30), font=font)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


if __name__ == "__main__":
    main()

"""A person's or video's folder is one group, wherever it stands. Oracle: who is in each folder."""

import pytest

from src.cli.folds import main as folds_command
from src.data.items.folder_groups import ask_above
from src.data.items.identities import video_of_frame
from tests.data.conftest import expand, refused

PEOPLE = [f"p{k:02d}" for k in range(12)]
WHO = "{" + ",".join(PEOPLE) + "}"
BELOW = expand(f"{{real,fake}}/{WHO}/{{0,1}}.jpg")
ABOVE = expand(f"{WHO}/{{live/a,live/b,spoof/a}}.jpg")


@pytest.fixture
def load(toy):
    return lambda files, yaml="": toy(files, {"dataset.yaml": yaml})


def groups_of(dataset, who) -> list[set[str]]:
    """Return the people of each group, "" for items without one."""
    return [
        {who(path) for path in part["path"]} if group else {""}
        for group, part in dataset.train.groupby("group")
    ]


def notes_with(dataset, text: str) -> list[str]:
    return [note for note in dataset.notes if text in note]


def test_a_folder_of_one_name_in_both_classes_is_one_group(load):
    dataset = load(BELOW, "subfolders: group\n")
    assert groups_of(dataset, lambda path: path.split("/")[1]) == [{who} for who in PEOPLE]
    assert notes_with(dataset, "12 folders stand in several classes")
    apart = load(BELOW, "subfolders: group\nsame_names: ignore\n")
    assert apart.train["group"].nunique() == 24


@pytest.mark.parametrize("tops", [("print", "replay"), ("train", "val"), ("train/a", "val/b")])
def test_it_is_one_group_in_every_domain_and_split(load, tops):
    files = [f"{top}/{path}" for top in tops for path in BELOW]
    dataset = load(files, "subfolders: group\n")
    assert groups_of(dataset, lambda path: path.split("/")[-2]) == [{who} for who in PEOPLE]
    apart = load(files, "subfolders: group\nsame_names: ignore\n")
    assert apart.train["group"].nunique() == 48


def test_people_of_test_are_counted_separately(load):
    files = [f"{split}/{path}" for split in ("train", "test") for path in BELOW]
    dataset = load(files, "subfolders: group\n")
    assert dataset.test["group"].nunique() == 12
    assert not set(dataset.test["group"]) & set(dataset.train["group"])


def test_folders_above_that_may_be_people_are_asked_about(load, capsys):
    with refused("12 folders, such as p00/ and p01/, with 3 train.*folders_above: group.*: domain"):
        load(ABOVE)
    dataset = load(ABOVE, "folders_above: group\n")
    assert groups_of(dataset, lambda path: path.split("/")[0]) == [{who} for who in PEOPLE]
    assert set(dataset.items["domain"]) == {""}
    assert folds_command(["--n-folds", "3"]) == 0
    # By hand: in StratifiedKFold nearly everybody's three pictures part.
    (given,) = [line for line in capsys.readouterr().out.splitlines() if "given groups:" in line]
    assert int(given.split()[2]) > 24
    domains = load(ABOVE, "folders_above: domain\n")
    assert domains.train["domain"].nunique() == 12
    assert set(domains.train["group"]) == {""}


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["stylegan", "stylegan2", "sd14", "sd21", "biggan", "glide", "adm", "vqdm", "dalle2",
          "midjourney", "wukong", "ldm"], False),
        (["print_a", "replay_b", "mask_c"], False),
        (["camera1", "camera2", "camera3", "camera4"], False),
        (["d0", "d1", "d2"], False),
        (["id0_1", "id2_3", "id4_5", "id6_7"], True),
        (["00", "01", "02", "03", "extra"], True),
        (["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"], True),
        (["Megan", "Logan", "Mika", "Tuva", "Ida"], True),
        (["alice", "bob", "carol", "dave"], False),
        (["FaceForensics", "CelebDF", "DFDC", "DeeperForensics", "mine"], False),
        (["Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", "other"], False),
        ([chr(98 + k // 9) + chr(98 + k % 9) for k in range(40)], True),
    ],
)  # fmt: skip
def test_what_is_asked_about(load, names, asked):
    files = [f"{name}/{c}/{k}x{c}.png" for name in names for c in ("real", "fake") for k in (0, 1)]
    if asked:
        with refused("folders_above: group"):
            load(files)
        return
    dataset = load(files)
    assert set(dataset.train["domain"]) == set(names)
    assert notes_with(dataset, f"the {len(names)} folders above")


def test_large_folders_are_domains_unasked():
    assert ask_above(dict.fromkeys(["alpha", "beta", "gamma", "delta", "omega", "psi"], 900)) == ""
    assert ask_above({f"biggan/{name}": 9 for name in ("car", "cat", "cow", "dog", "boat")}) == ""
    assert "in 6 folders" in ask_above(dict.fromkeys("uvwxyz", 90))


def test_videos_of_people_above_real_and_fake_are_asked_about_too(load):
    files = expand(f"{WHO}/{{real,fake}}/v_frame0.png")  # FLIP's form
    with refused("12 folders.*folders_above: group"):
        load(files)
    dataset = load(files, "folders_above: group\n")
    assert groups_of(dataset, lambda path: path.split("/")[0]) == [{who} for who in PEOPLE]


def test_of_two_levels_the_one_that_is_a_person_is_asked_for(load):
    sessions = expand(f"{{real,fake}}/{WHO}/{{s0,s1,s2}}/0.jpg")
    first, last = "subfolders: [group, ignore]", "subfolders: [domain, group]"
    with refused(rf"p0./s0/ and p0./s0/.*`{first}`".replace("[g", r"\[g")) as error:
        load(sessions, "subfolders: group\n")
    assert f"`{last}` (s0 is)" in str(error.value)
    dataset = load(sessions, f"{first}\n")
    assert groups_of(dataset, lambda path: path.split("/")[1]) == [{who} for who in PEOPLE]
    dataset = load(sessions, f"{last}\n")
    assert groups_of(dataset, lambda path: path.split("/")[2]) == [{"s0"}, {"s1"}, {"s2"}]
    assert set(dataset.train["domain"]) == set(PEOPLE)


def test_videos_by_method_are_tied_to_their_originals(load):
    files = expand("{real,fake/swap,fake/talk}/{000,001,002,003}/0.png")
    with refused(r"swap/000/ and talk/000/.*`subfolders: \[domain, group\]`") as error:
        load(files, "subfolders: group\n")
    assert "[group, ignore]" not in str(error.value)  # which real/ would not fit
    dataset = load(files, "subfolders: [domain, group]\n")
    assert groups_of(dataset, lambda path: path.split("/")[-2]) == [{f"{k:03d}"} for k in range(4)]
    assert set(dataset.train["domain"]) == {"", "swap", "talk"}
    with refused(r"names 2 levels.*of 000/ there are 1"):
        load(files, "subfolders: [group, ignore]\n")


def test_unlike_names_in_a_level_between_need_no_answer(load):
    files = expand("real/youtube/{a,b}/0.png", "fake/swap/{a,c}/0.png")
    dataset = load(files, "subfolders: group\n")
    assert sorted(dataset.train["group"]) == ["a", "a", "fake/swap/c", "real/youtube/b"]


PAIRS = [f"{c}/{k:04d}.{kind}" for c, kind in (("real", "jpg"), ("fake", "png")) for k in range(8)]


def test_files_of_equal_names_are_said_and_tied_on_request(load, capsys):
    dataset = load([*PAIRS[:12], "fake/x.png"])
    assert not notes_with(dataset, "WARNING")  # four of five are chance
    dataset = load(PAIRS, "ignore: [fake/x.png]\n")
    assert set(dataset.train["group"]) == {""}
    assert folds_command(["--n-folds", "2"]) == 0
    said = "WARNING 8 of 8 names of real files are names of fake ones too (such as 0000), and are"
    assert said in capsys.readouterr().out
    for how, groups in (("group", [f"{k:04d}" for k in range(8)] * 2), ("ignore", [""] * 16)):
        dataset = load([], f"ignore: [fake/x.png]\nsame_names: {how}\n")
        assert dataset.train["group"].tolist() == groups
        assert not notes_with(dataset, "WARNING")


def test_equal_names_in_a_table_and_below_domains_are_said(toy):
    below = [f"b/{c}/{c}{k}.png" for c in ("real", "fake") for k in range(40)]
    assert notes_with(toy([*(f"a/{path}" for path in PAIRS), *below]), "8 of 8 names")
    rows = "".join(f"{name},{int('fake' in name)}\n" for name in PAIRS)
    texts = {"train.csv": "id,label\n" + rows, "dataset.yaml": "ignore: ['a/*', 'b/*']\n"}
    assert notes_with(toy(PAIRS, texts), "8 of 8 names")


def test_people_of_train_and_val_may_be_others_if_dataset_yaml_says_so(load, capsys):
    files = [f"{split}/{path}" for split in ("train", "val") for path in BELOW]
    load(files, "subfolders: group\n")
    assert folds_command(["--scheme", "fixed"]) == 2
    said = capsys.readouterr().err
    assert "group 'p00' stands in folds [0, 1]: that leaks" in said
    assert "`same_names: ignore`" in said
    load(files, "subfolders: group\nsame_names: ignore\n")
    assert folds_command(["--scheme", "fixed"]) == 0
    assert "fixed.csv" in capsys.readouterr().out


def test_folders_of_a_table_without_groups_are_said_and_tied_on_request(toy):
    rows = "".join(f"{who}/{k}.jpg,{k % 2}\n" for who in PEOPLE for k in range(4))
    dataset = toy(expand(f"train/{WHO}/{{0,1,2,3}}.jpg"), {"train.csv": "id,label\n" + rows})
    assert set(dataset.train["group"]) == {""}
    (note,) = notes_with(dataset, "WARNING")
    assert "no table names groups, and labelled files lie in 12 folders" in note
    assert "`folders_above: group`" in note
    groups = toy([], {"dataset.yaml": "folders_above: group\n"})
    assert groups_of(groups, lambda path: path.split("/")[1]) == [{who} for who in PEOPLE]
    domains = toy([], {"dataset.yaml": "folders_above: domain\n"})
    assert (set(domains.train["group"]), domains.train["domain"].nunique()) == ({""}, 12)
    assert not notes_with(groups, "WARNING") + notes_with(domains, "WARNING")


@pytest.mark.parametrize(
    ("form", "video"),
    [
        ("{}_frame000", True), ("{}_frame_12", True), ("{}-frame-12", True), ("{}frame12", True),
        ("{}_f0012", True), ("{}.mp4_12", True), ("{}_Frame7_face_0", True),
        ("img_{}", False), ("{}_12", False), ("{}_f1", False), ("{}keyframe", False),
        ("frame{}", False), ("frame_{}", False), ("{}", False), ("{}_0012", False),
    ],
)  # fmt: skip
def test_which_names_are_those_of_frames(form, video):
    assert video_of_frame(form.format("vid00")) == ("vid00" if video else "")


FLAT = [f"{c}/{c[0]}v{k:02d}_frame{n:03d}.jpg" for c in ("real", "fake") for k in range(4)
        for n in range(3)]  # fmt: skip


def test_frames_of_one_video_in_flat_folders_are_one_group(load):
    dataset = load(FLAT)
    held = groups_of(dataset, lambda path: path.split("/")[1].split("_")[0])
    assert held == [{f"{c}v{k:02d}"} for c in "fr" for k in range(4)]
    (note,) = notes_with(dataset, "named as frames of 8 videos")
    assert "24 pictures" in note
    assert "same_names" not in note


def test_frames_of_one_name_in_both_classes_and_in_val_are_one_group(load):
    files = expand("{train,val}/{real,fake}/v{0,1,2}_frame{0,1}.png")
    dataset = load(files)
    assert dataset.train["group"].value_counts().to_dict() == {f"v{k}": 8 for k in range(3)}
    assert notes_with(dataset, "`same_names: ignore`")
    apart = load(files, "same_names: ignore\n")
    assert apart.train["group"].value_counts().tolist() == [2] * 12


def test_frames_of_one_name_in_two_domains_are_two_groups(load):
    dataset = load([f"{d}/{path}" for d in ("print", "lab") for path in (*FLAT, "real/x.jpg")])
    assert dataset.train["group"].nunique() - 1 == 16
    assert (dataset.train["group"] == "").sum() == 2


@pytest.mark.parametrize(
    "form", ["img_{:03d}", "{c}_frame_{:03d}", "pic_frame{:03d}", "x{c}_f{:03d}"]
)
def test_numbered_pictures_are_no_frames_of_one_video(load, form):
    dataset = load([f"{c}/{form.format(k, c=c)}.jpg" for c in ("real", "fake") for k in range(6)])
    assert set(dataset.train["group"]) == {""}
    said = notes_with(dataset, "taken for numbered pictures")
    assert len(said) == (2 if form[0] in "px" else 0)


def test_frames_that_a_table_names_are_tied_and_given_folds_stand(toy):
    files = [path.replace("/", "_") for path in FLAT]
    rows = [f"{name},{int('fake' in name)}" for name in files]
    table = {"train.csv": "id,label\n" + "\n".join(rows) + "\n"}
    dataset = toy([f"train/{name}" for name in files], table)
    assert dataset.train["group"].nunique() == 8
    folds = "".join(f"{row},{k % 2}\n" for k, row in enumerate(rows))
    dataset = toy([], {"train.csv": "id,label,fold\n" + folds})
    assert set(dataset.train["group"]) == {""}
    assert notes_with(dataset, "the given folds part some of them")

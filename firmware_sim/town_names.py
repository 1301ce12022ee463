"""Made-up people and places of the town, in English and Arabic: nobody and nowhere real is meant."""

from __future__ import annotations

SUBSTATION = ("Wadi Al Noor substation", "محطة وادي النور")
FEEDERS = (
    ("Nakheel feeder", "مغذي النخيل"),
    ("Bahja feeder", "مغذي البهجة"),
)
TRANSFORMERS = (
    ("Al Nakheel lane transformer", "محول سكة النخيل"),
    ("Al Manara transformer", "محول المنارة"),
    ("Old Falaj transformer", "محول الفلج القديم"),
    ("Sahil Al Bahja transformer", "محول ساحل البهجة"),
    ("Al Luban hill transformer", "محول تل اللبان"),
)
WATER_SOURCE = ("Jabal Al Safa reservoir", "خزان جبل الصفا")
WATER_ZONES = (
    ("Al Nakheel water zone", "منطقة مياه النخيل"),
    ("Old Falaj water zone", "منطقة مياه الفلج القديم"),
    ("Al Luban water zone", "منطقة مياه تل اللبان"),
)

# One quarter for each transformer.
QUARTERS = (
    ("Al Nakheel", "النخيل"),
    ("Al Manara", "المنارة"),
    ("Old Falaj", "الفلج القديم"),
    ("Sahil Al Bahja", "ساحل البهجة"),
    ("Al Luban Hill", "تل اللبان"),
)

PEOPLE = (
    ("Salim bin Said Al Noufali", "سالم بن سعيد النوفلي"),
    ("Maryam bint Hamad Al Safiya", "مريم بنت حمد الصافية"),
    ("Khalid bin Nasser Al Wadi", "خالد بن ناصر الوادي"),
    ("Aisha bint Rashid Al Marjani", "عائشة بنت راشد المرجانية"),
    ("Yusuf bin Ali Al Lubani", "يوسف بن علي اللباني"),
    ("Fatma bint Sulaiman Al Falahi", "فاطمة بنت سليمان الفلاحية"),
    ("Hamood bin Talib Al Sahli", "حمود بن طالب الساحلي"),
    ("Zuwaina bint Khamis Al Nakhli", "زوينة بنت خميس النخلية"),
    ("Badr bin Mohammed Al Manari", "بدر بن محمد المناري"),
    ("Priya Raman", "بريا رامان"),
    ("Said bin Juma Al Bahji", "سعيد بن جمعة البهجي"),
    ("Thuraya bint Ahmed Al Jabali", "ثريا بنت أحمد الجبلية"),
    ("Majid bin Hilal Al Naseem", "ماجد بن هلال النسيم"),
    ("Imran Qureshi", "عمران قريشي"),
    ("Rahma bint Saif Al Sidri", "رحمة بنت سيف السدرية"),
    ("Abdullah bin Amer Al Ghafi", "عبدالله بن عامر الغافي"),
    ("Nasra bint Zahir Al Reem", "نصرة بنت زاهر الريمية"),
    ("Faisal bin Hamdan Al Barqi", "فيصل بن حمدان البرقي"),
    ("Grace Mendoza", "غريس مندوزا"),
    ("Ibrahim bin Musallam Al Dafri", "إبراهيم بن مسلم الظفري"),
    ("Shamsa bint Khalfan Al Qamari", "شمسة بنت خلفان القمرية"),
    ("Ahmed bin Yaqoub Al Minai", "أحمد بن يعقوب المينائي"),
    ("Laila bint Murshid Al Wardi", "ليلى بنت مرشد الوردية"),
    ("Haitham bin Salem Al Noori", "هيثم بن سالم النوري"),
    ("Anwar bin Darwish Al Saqri", "أنور بن درويش الصقري"),
    ("Sheikha bint Obaid Al Yasmin", "شيخة بنت عبيد الياسمين"),
    ("Daniel Okafor", "دانيال أوكافور"),
    ("Mahmood bin Issa Al Khuzami", "محمود بن عيسى الخزامي"),
    ("Hilal bin Rashid Al Samri", "هلال بن راشد السمري"),
    ("Asma bint Talal Al Fajri", "أسماء بنت طلال الفجرية"),
    ("Juma bin Saleh Al Mazroi", "جمعة بن صالح المزروعي"),
    ("Muna bint Qais Al Durri", "منى بنت قيس الدرية"),
    ("Sultan bin Khamis Al Hajri", "سلطان بن خميس الحجري"),
    ("Wafa bint Idris Al Zahrani", "وفاء بنت إدريس الزهرانية"),
    ("Tariq bin Mubarak Al Shamali", "طارق بن مبارك الشمالي"),
    ("Noor bint Hamed Al Rimali", "نور بنت حامد الرملية"),
    ("Qasim bin Latif Al Bustani", "قاسم بن لطيف البستاني"),
)

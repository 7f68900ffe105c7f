// Made by tools/fixtures/text_tables.py from tokenizers 0.23.3; do not edit.

/// What regular expressions and normal forms of Hugging Face tokenizers know of Unicode.
enum TextTables {
  /// Runs of scalars from 0 on: the letter of a class, and the length in hexadecimal where not 1.
  static let classes: StaticString = """
    o9w5o12wp3sp6sp4nAp2s3p2u1Ap3spsl1Apspso6wo1Awps5ps2xpsos4n2slp2snxpn3pu17su7l18sl8ulululululululululululululululul
    ulululululululululululul2ulululululululul2ulululululululululululululululululululululululu2lulul3u2lulu2lu3l2u4lu2l
    u3l3u2lu2lululu2lul2ulu2lu3lulu2l2xul3x4u2lu2lu2lulululululululul2ululululululululul2u2lulu3lululululululululululul
    ulululululululululululululululululul7u2lu2l2ulu4lulululul45xl1Bx12s4xCsEx5s7xsxs11m70ululxsulo2xl3puo4s2upu3ouou2l
    u11ou9l23ul2u3l3ulululululululululululul5ulsulu2l2u33l30ulululululululululululululululululsm7ululululululululululul
    ululululululululululululululululu2lulululululul2ulululululululululululululululululululululululululululululululululu
    lululululululululululululululou26o2xp6l29p2o2s3om2Dpmpm2pm2pmo8x1Bo4x4p2o11s3p2sp2s2mBpop3x2Bm15nAp4x2mx63pxm7osm6
    x2m2sm4x2nAx3s2xpEo2xmx1Em1Bo2x59mBxoEnAx21m9x2sp3xo2ms2x16m4xm9xm3xm5o2pFox19m3o2poxBo5x18sx6o8m9x2Am18om21x36m3x
    m12xm7xAm2p2nApx10m3ox8o2x2o2x16ox7oxo3x4o2mxm7o2m2o2m3xo8mo4x2ox3m2o2nAx2s2n6s2xpmo2m3ox6o4x2o2x16ox7ox2ox2ox2o2mo
    m5o4m2o2m3o3mo7x4oxo7nAm2x3mpoAm3ox9ox3ox16ox7ox2ox5o2mxm8om3om3o2xoFx2m2o2nApso7xm6om3ox8o2x2o2x16ox7ox2ox5o2mxm7
    o2m2o2m3o7m3o4x2ox3m2o2nAsxn6oAmxox6o3x3ox4o3x2oxox2o3x2o3x3o3xCo4m5o3m3om4o2xo6moEnDs8o5m5x8ox3ox17ox10o2mxm7om3o
    m4o7m2ox3o2xo2x2m2o2nAo7pn7sxm3px8ox3ox17oxAox5o2mxm7om3om4o7m2o6x2ox2m2o2nAox2moCm4x9ox3ox29m2xm7om3om4xso4x3mn7x3
    m2o2n13sx6om3ox12o3x18ox9oxo2x7o3mo4m6omom8o6nAo2m2poCx30mx2m7o4sx7m8pnAp2o25x2oxox5ox18oxoxAmx2m9xo2x5oxom7onAo2x4
    o20xs3pFsps3m2s6n14smsmsmp4m2x8ox24o4m14pm2x5mBom24os8ms6os2p5s4p2o25x2Bm14xnAp6x6m4x4m3xm3x2m7x3m4xDmCxmnAm4s2u26o
    uo5uo2l2Bpxl3x149ox4o2x7oxox4o2x29ox4o2x21ox4o2x7oxox4o2xFox39ox4o2x43o2m3p9n14o3x10sAo6u56o2l6o2px26Cspx11wx1Ap2o3
    x4Bp3n3x8o7x12m4o9x13m3p2o9x12m2oCxDox3om2oCx34m20p3xp3sxmo2nAo6nAo6pBm3omnAo6x59o7x5m2x22mxo5x46oAx1FomCo4mCo4so3
    p2nAx1Eo2x5oBx2Co4x1Ao6nBo3s22x17m5o2p2x35mAom1Do2mnAo6nAo6p7xp6o2m1Fo31m5x2Fm11x8op2nAp7sAm9s9p3m3x1EmDx2nAx2CmEo8
    p4x24m14o3p5nAo3x3nAx24p2l9ulo5u2Bo2u3p8o8m3pm15x4mx6mx2m3xo5l2Cx3FlDxl22x25m40ulululululululululululululululululul
    ululululululululululululululululululululululululululululululululululululululululululululululululululululululululul9
    ululululululululululululululululululululululululululululululululululululululululululululululululul9u8l6o2u6o2l8u8l8
    u8l6o2u6o2l8ououououl8u8lEo2l8u8l8u8l8u8l5ol2u5sls3l3ol2u5s3l4o2l2u4os3l8u5s3o2l3ol2u5s2owBo5p18w2o5wp14spDspCwo10n
    xo2n6s3p2xnAs3p2oxDo3s21oFm21oFs2us4us2lu3l2u3lsus3u5s6usususu4slu4lx4ls2l2u2s5ul4s4lsn33uln5s2o4s178p4s1Dp2sFFo16
    sBo15n3Cs4En16s268pEn1Es31p2s1FpAs193p16s3Fp4s20p2s176o2s20os69u30l30ulu3l2ulululu4lul2ul6x2u3lulululululululululul
    ululululululululululululululululululululululululululululululululululululululul2s6ululm3ulo5p4np2l26olo5lo2x38o7xpoE
    mx17o9x7ox7ox7ox7ox7ox7ox7ox7om20p2Fxp20s2pCo22s1Aos59oCsD6o1As10wp3sx2npAs2pCsn9m6px5s2n3x2ps2ox56o2m2s2x3px5Apx4
    o5x2Box5Eos2n4sAx20s26o9sx10s1FonAs1En8snFs20nAs27nFs140x19C0s40x568Do3s37o9x2Ep2x10Dp3x10nAx2o14ululululululululul
    ululululululululululululululxm4pmApxululululululululululululululx2m2x46nAm2p6o8s17x9s2ululululululul3ululululululul
    ululululululululululululululululululululululululxl8ululu2lululululxs2ululxulul3ululululululululululu5lu5lululululul
    ululu4lulu2lo2ulololulululuo15x3ulx3lx7mx3mx4mx17m5s4mo3n6s4o6x34p4o8m2x32m12o8p2nAo6m12x6p3xpx2mnAx1Cm8p2x17mDoBp
    x1Do3m4x2FmEpDoxnAo4p2x5mxAnAx5ox29mEo9x3mx8m2o2nAo2p4x17s3xm3x32mxm3x2m2x5m2xmxo18x3p2xBm5p2x3m2oAx6o2x6o2x6o9x7o
    x7ol2Bsx4l9xs2o4l50x23m8pm2o2nAo6x2BA4oCx17o4x31o2104x16Eo2x6Ao26l7oCl5o5xmxAsxDox5oxox2ox2ox6Cs11o10x16Bp2s10x40o2
    x36o7so20xCs4m10pAo6m10p23opEsps3opsp2o4x5ox87o4p3sp6sp4nAp2s3p2u1Ap3spsl1Apspsp7x59o3x6o2x6o2x6o2x3o3s7os7oDs2o2xC
    ox1Aox13ox2oxFo2xEo22x7Bo5p3o4n2Do3s9n39s11n2s3osDo3so2Fs2Dmo82x1Do3x31oFmn1Bo4x20n4o9x14nx8no5x26m5o5x1Eopx24o4x8p
    n5o2Au28l28x4Eo2nAo6u24o4l24o4x28o8x34oBpuBouFou7ou2olBolFol7ol2o3x34oCx137o9x16oAx8o18x6ox2Aox9o45x6o2xox2Cox2o3x
    o2x17opn8x17s2n7x1Fo8n9o30x13ox2o5n5x16n6o3px1Ao5po40x38o4n2x2n10o2n2Exm3om2o5m4x4ox3ox1Do2m3o4mn9o7p9o7x1Dn2px1Dn3
    o20x8sx1Cm2o4n5p7o9x36o3p7x16o2n8x13o5n8x12o7p4oCn7o50x49o37u33oDl33o7n6x24m4o8nAo6nAx6u16o3m5pxl16o8s2oD0n1Fox2Ao
    m2po2x2o10x3o37m4x1DnAxo8x16mBn4p5o16x12m4p4o26x15n7o14x17o9m3x35mFp7o4n1Emx2m2xo9m4x2DmBp2op4moDx19o7nAo6m3x24mEo
    nAp4xm2xo8x23mp2xo9m3x30mEx4p4m4pm2nAxpxp3on14oBx12ox19mCp6mx2mo3Ex7oxox4oxFoxApo6x2FmCo5nAo6m4ox8o2x2o2x16ox7ox2o
    x5om2xm7o2m2o2m3o2xo6mo5x5m2o2m7o3m5oBxAoxo2xox26oxm9omo2mom4om5xmxp2op2o8m2o1Dx35m12x4p5nAp2opmx3o1Ex30m14x2pxo8nA
    oA6x2Fm7o2m9p17x4m2o22x30m11p3xoBnAo6pDo13x2BmDxpo6nAo6n14o1Cx1Bo2mFo4nCp3sx7oB9x2CmFpo64u20l20n13oCx8o2xo2x8ox2o
    x18m6om2o2m4xmxm2p3o9nAo46x8o2x27m7o2m7xpxmo1BxmAx28m7xm4p8mo8xmBx2Em10p3xp5oDx49o7pAoB6x21poEnAo6x9ox25m8om8xp5oA
    n1Do3p2x1Eo2m16omEo49x7ox2ox26m6o3mom2om7xmo8nAo6x6ox2ox20m5om2om5xo7nAo36rAoF6x13m4p2o7m2xmxDox22m7o3m5pDnAmo55xoF
    n15s1DoDpx39Ao66n6Fop5oBxC4oA4Cx61p2oDx430o10mx6mFoAxF9Bo5x247o1AB9x1Em12nAo6C6x239o7x1FonAo4p2x4FonAo6x1Eo2m5poA
    x30m7p5s4x4psoAnAon7ox15o5x13o1B0x2Dp3nAoC6u20l20n17p4o65x4Bo4mxm37o7m4xDo40x2pxmoBm2o2r3o9x17F8o8x4D6o29xAo22E7x4o
    x7ox2ox123oFxo1Dx3o2xoEx4o8x18Co904x6Bo5xDo3x9o7xAo2sm2poF60sF0nAo6s1B4o4Cm2Eo2m17o9s74o3CsF6oAs27o2s3Cm5s3m6o8m8s2
    m7s1Em4s3Do15s42m3so7An14oCn14oCs57o9n19o87u1Al1Au1Al7ol12u1Al1Auou2o2uo2u2o2u4ou8l4olol7olBu1Al1Au2ou4o2u8ou7ol1A
    u2ou4ou5ouo3u7ol1Au1Al1Au1Al1Au1Al1Au1Al1Au1Al1Au1Al1Co2u19sl19sl6u19sl19sl6u19sl19sl6u19sl19sl6u19sl19sl6ulo2n32
    s200m37s4m32s8msEms2p5oFm5omFo450lAxl14o6l6oD5m7om11o2m7om2om5o5x3Eo21mo70x2Do3m7x7o2nAo4xso140x1Emo11x2Cm4nAo5s
    o1D0x1Cm4nAoD6x1Em2xnAo4po1E0x7ox4ox2oxFoxC5o2n9m7o29u22l22m7xo4nAo4p2o311n3Bsn3sn4o4Cn2DsnFoC2x4ox1Box2oxo2xoxAox4
    oxoxo6xo4xoxoxox3ox2oxo2xoxoxoxoxox2oxo2x4ox7ox4ox4oxoxAox11o5x3ox5ox11o34s2o10Es2Co4s64oCsFo2sFosFos25oAnDsA1o38
    s1DoDs2Co4s9o7s2oEs6o9As3D8o4s11o3sDo3s77o4s5Fo6sCo4soFsCo4s38o8sAo6s28o8s1Eo2sCo4s2o3Es154oCsEo2sDo3sAo5s38o7sFo2
    sBo6s9o7s93os5CnAo406xA6E0o20x103Ao6xDEo2x1682oEx1D31oFx26Eo9A2x21Eo5E2x134Bo5x1060oADD50mF0o2FE10
    """

  /// Canonical combining classes that are not 0.
  static let combining: StaticString = """
    300-314:230 315:232 316-319:220 31A:232 31B:216 31C-320:220 321-322:202 323-326:220 327-328:202 329-333:220
    334-338:1 339-33C:220 33D-33F:230 342:230 345:240 346:230 347-349:220 34A-34C:230 34D-34E:220 350-352:230
    353-356:220 357:230 358:232 359-35A:220 35B:230 35C:233 35D-35E:234 35F:233 360-361:234 362:233 363-36F:230
    483-487:230 591:220 592-595:230 596:220 597-599:230 59A:222 59B:220 59C-5A1:230 5A2-5A7:220 5A8-5A9:230 5AA:220
    5AB-5AC:230 5AD:222 5AE:228 5AF:230 5B0:10 5B1:11 5B2:12 5B3:13 5B4:14 5B5:15 5B6:16 5B7:17 5B8:18 5B9-5BA:19 5BB:20
    5BC:21 5BD:22 5BF:23 5C1:24 5C2:25 5C4:230 5C5:220 5C7:18 610-617:230 618:30 619:31 61A:32 64B:27 64C:28 64D:29
    64E:30 64F:31 650:32 651:33 652:34 653-654:230 655-656:220 657-65B:230 65C:220 65D-65E:230 65F:220 670:35
    6D6-6DC:230 6DF-6E2:230 6E3:220 6E4:230 6E7-6E8:230 6EA:220 6EB-6EC:230 6ED:220 711:36 730:230 731:220 732-733:230
    734:220 735-736:230 737-739:220 73A:230 73B-73C:220 73D:230 73E:220 73F-741:230 742:220 743:230 744:220 745:230
    746:220 747:230 748:220 749-74A:230 7EB-7F1:230 7F2:220 7F3:230 816-819:230 81B-823:230 825-827:230 829-82D:230
    859-85B:220 8D4-8E1:230 8E3:220 8E4-8E5:230 8E6:220 8E7-8E8:230 8E9:220 8EA-8EC:230 8ED-8EF:220 8F0:27 8F1:28 8F2:29
    8F3-8F5:230 8F6:220 8F7-8F8:230 8F9-8FA:220 8FB-8FF:230 93C:7 94D:9 951:230 952:220 953-954:230 9BC:7 9CD:9 A3C:7
    A4D:9 ABC:7 ACD:9 B3C:7 B4D:9 BCD:9 C4D:9 C55:84 C56:91 CBC:7 CCD:9 D4D:9 DCA:9 E38-E39:103 E3A:9 E48-E4B:107
    EB8-EB9:118 EC8-ECB:122 F18-F19:220 F35:220 F37:220 F39:216 F71:129 F72:130 F74:132 F7A-F7D:130 F80:130 F82-F83:230
    F84:9 F86-F87:230 FC6:220 1037:7 1039-103A:9 108D:220 135D-135F:230 1714:9 1734:9 17D2:9 17DD:230 18A9:228 1939:222
    193A:230 193B:220 1A17:230 1A18:220 1A60:9 1A75-1A7C:230 1A7F:220 1AB0-1AB4:230 1AB5-1ABA:220 1ABB-1ABC:230 1ABD:220
    1B34:7 1B44:9 1B6B:230 1B6C:220 1B6D-1B73:230 1BAA-1BAB:9 1BE6:7 1BF2-1BF3:9 1C37:7 1CD0-1CD2:230 1CD4:1
    1CD5-1CD9:220 1CDA-1CDB:230 1CDC-1CDF:220 1CE0:230 1CE2-1CE8:1 1CED:220 1CF4:230 1CF8-1CF9:230 1DC0-1DC1:230
    1DC2:220 1DC3-1DC9:230 1DCA:220 1DCB-1DCC:230 1DCD:234 1DCE:214 1DCF:220 1DD0:202 1DD1-1DF5:230 1DFB:230 1DFC:233
    1DFD:220 1DFE:230 1DFF:220 20D0-20D1:230 20D2-20D3:1 20D4-20D7:230 20D8-20DA:1 20DB-20DC:230 20E1:230 20E5-20E6:1
    20E7:230 20E8:220 20E9:230 20EA-20EB:1 20EC-20EF:220 20F0:230 2CEF-2CF1:230 2D7F:9 2DE0-2DFF:230 302A:218 302B:228
    302C:232 302D:222 302E-302F:224 3099-309A:8 A66F:230 A674-A67D:230 A69E-A69F:230 A6F0-A6F1:230 A806:9 A8C4:9
    A8E0-A8F1:230 A92B-A92D:220 A953:9 A9B3:7 A9C0:9 AAB0:230 AAB2-AAB3:230 AAB4:220 AAB7-AAB8:230 AABE-AABF:230
    AAC1:230 AAF6:9 ABED:9 FB1E:26 FE20-FE26:230 FE27-FE2D:220 FE2E-FE2F:230 101FD:220 102E0:220 10376-1037A:230
    10A0D:220 10A0F:230 10A38:230 10A39:1 10A3A:220 10A3F:9 10AE5:230 10AE6:220 11046:9 1107F:9 110B9:9 110BA:7
    11100-11102:230 11133-11134:9 11173:7 111C0:9 111CA:7 11235:9 11236:7 112E9:7 112EA:9 1133C:7 1134D:9
    11366-1136C:230 11370-11374:230 11442:9 11446:7 114C2:9 114C3:7 115BF:9 115C0:7 1163F:9 116B6:9 116B7:7 1172B:9
    11C3F:9 16AF0-16AF4:1 16B30-16B36:230 1BC9E:1 1D165-1D166:216 1D167-1D169:1 1D16D:226 1D16E-1D172:216
    1D17B-1D182:220 1D185-1D189:230 1D18A-1D18B:220 1D1AA-1D1AD:230 1D242-1D244:230 1E000-1E006:230 1E008-1E018:230
    1E01B-1E021:230 1E023-1E024:230 1E026-1E02A:230 1E8D0-1E8D6:220 1E944-1E949:230 1E94A:7
    """
}
